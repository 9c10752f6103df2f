package codeserver

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

var (
	locationName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	pythonVersion = regexp.MustCompile(`^3\.(0|[1-9][0-9]?)$`)
	variableName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// checkDeploy refuses requests that make no sense, before anything is done about them.
func checkDeploy(req *codeserverpb.DeployRequest) error {
	if !locationName.MatchString(req.GetLocation()) {
		return fmt.Errorf("%w: %.80q is no name for a location: 1 to 63 letters, digits, '-', '_' or '.', starting with a letter or digit",
			errRequest, req.GetLocation())
	}
	if err := checkTimeout(req.GetReadyTimeout()); err != nil {
		return err
	}
	if err := checkCanary(req.GetCanary()); err != nil {
		return err
	}
	return checkSpec(req.GetSpec())
}

func checkCanary(c *codeserverpb.Canary) error {
	switch d := c.GetDuration(); {
	case c == nil:
		return nil
	case c.GetPercent() < 1 || c.GetPercent() > 99:
		return fmt.Errorf("%w: a canary's share is 1 to 99 percent, not %d", errRequest, c.GetPercent())
	case d == nil || d.CheckValid() != nil || d.AsDuration() <= 0:
		return fmt.Errorf("%w: a canary needs a time for which it is tried", errRequest)
	case c.GetMaxMoreErrorsPercent() < 0 || c.GetMaxMoreErrorsPercent() > 100:
		return fmt.Errorf("%w: a canary may fail at most 100 percent points more, not %d", errRequest, c.GetMaxMoreErrorsPercent())
	case c.GetMaxLatencyPercent() < 0:
		return fmt.Errorf("%w: a canary's latency limit is %d percent", errRequest, c.GetMaxLatencyPercent())
	}
	return nil
}

// checkDeployAll refuses deploys that cannot be made at once. Each is checked by itself as well.
func checkDeployAll(req *codeserverpb.DeployAllRequest) error {
	if len(req.GetDeploys()) == 0 {
		return fmt.Errorf("%w: no location to deploy", errRequest)
	}
	seen := map[string]bool{}
	for _, d := range req.GetDeploys() {
		switch {
		case seen[d.GetLocation()]:
			return fmt.Errorf("%w: location %.80q is deployed twice at once", errRequest, d.GetLocation())
		case d.GetCanary() != nil:
			return fmt.Errorf("%w: several locations switch together or not at all: location %.80q cannot have a canary", errRequest, d.GetLocation())
		}
		seen[d.GetLocation()] = true
	}
	return nil
}

// outputName is what a further tree of a version may be called: it becomes part of a variable's name.
var outputName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

func checkTimeout(d *durationpb.Duration) error {
	if d != nil && (d.CheckValid() != nil || d.AsDuration() <= 0) {
		return fmt.Errorf("%w: the ready timeout is not more than nothing", errRequest)
	}
	return nil
}

func checkSpec(spec *codeserverpb.VersionSpec) error {
	e := spec.GetEntry()
	switch {
	case spec == nil:
		return fmt.Errorf("%w: no spec", errRequest)
	case !pythonVersion.MatchString(spec.GetPython()):
		return fmt.Errorf("%w: python is a version such as 3.11, not %.40q", errRequest, spec.GetPython())
	case e.GetPreset() == "":
		return fmt.Errorf("%w: nothing says what the location runs", errRequest)
	case !slices.Contains(presets, e.GetPreset()):
		return fmt.Errorf("%w: no preset %.40q; there are %s", errRequest, e.GetPreset(), strings.Join(presets, ", "))
	case len(e.GetArgs()) == 0 || e.GetArgs()[0] == "":
		return fmt.Errorf("%w: preset %s has no arguments: what to run?", errRequest, e.GetPreset())
	case slices.ContainsFunc(e.GetArgs(), func(a string) bool { return strings.ContainsRune(a, 0) }):
		return fmt.Errorf("%w: an argument holds a NUL", errRequest)
	}
	for _, dir := range append([]string{e.GetWorkingDirectory()}, e.GetSourceRoots()...) {
		// A colon would end the name in PYTHONPATH.
		if dir != "" && (!filepath.IsLocal(dir) || path.Clean(dir) != dir || strings.ContainsAny(dir, ":\x00")) {
			return fmt.Errorf("%w: %.200q is not a directory inside the source tree", errRequest, dir)
		}
	}
	for name := range spec.GetOutputs() {
		if !outputName.MatchString(name) {
			return fmt.Errorf("%w: %.80q is no name for an output: 1 to 64 lower-case letters, digits and hyphens", errRequest, name)
		}
	}
	for name, value := range spec.GetEnv() {
		if err := checkVariable(name, value); err != nil {
			return fmt.Errorf("%w: %w", errRequest, err)
		}
	}
	if err := errors.Join(checkLimits(spec.GetLimits()), checkSecrets(spec)); err != nil {
		return err
	}
	if p := e.GetReadiness().GetHttpPath(); p != "" {
		if _, err := url.ParseRequestURI(p); err != nil || !strings.HasPrefix(p, "/") {
			return fmt.Errorf("%w: %.200q is no HTTP path, which begins with a slash", errRequest, p)
		}
	}
	return nil
}

// checkVariable refuses what cannot be a variable of a version's process.
func checkVariable(name, value string) error {
	switch {
	case !variableName.MatchString(name) || strings.ContainsRune(value, 0):
		return fmt.Errorf("%.80q is no environment variable", name)
	case name == "PORT":
		return fmt.Errorf("PORT is set by the codeserver; use it, or {port} in an argument, for what to listen on")
	}
	return nil
}
