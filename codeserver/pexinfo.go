package codeserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/loader"
	"github.com/pexpress/pexpress/codeserver/venv"
)

const (
	infoFile = "PEX-INFO"
	depsDir  = ".deps/"
	maxInfo  = 16 << 20
)

// isSource reports whether a file of source.pex is the project's, and not one by which pex starts it: the codeserver
// runs the project in a virtual environment of its own.
func isSource(p string) bool {
	top, _, _ := strings.Cut(p, "/")
	switch top {
	case infoFile, "__main__.py", "__pex__", "pex", ".bootstrap", ".deps":
		return false
	}
	return true
}

// wheelsOf returns the wheels of a deps.pex.
func wheelsOf(t *merkle.Tree) []venv.Wheel {
	var wheels []venv.Wheel
	for p, d := range t.Files() {
		if rest, ok := strings.CutPrefix(p, depsDir); ok {
			wheels = append(wheels, venv.Wheel{Filename: rest, Digest: d})
		}
	}
	return wheels
}

// A field of PEX-INFO is one of three: it says something that holds here in any case, it must have the one value that
// the codeserver honours, or it is honoured whatever its value is. Any other field is refused: none is ignored that
// could mean something.
var (
	// informative are hashes, what pex was built with, and what only pex's own resolver or start-up looks at.
	informative = []string{
		"bootstrap_hash", "build_properties", "code_hash", "pex_hash", "emit_warnings", "excluded", "ignore_errors",
		"includes_tools", "interpreter_selection_strategy", "max_install_jobs", "overridden", "pex_root", "strip_pex_env",
		"venv", "venv_copies", "venv_hermetic_scripts", "venv_site_packages_copies", "deps_are_wheel_files",
	}
	// only are the fields of which one value is honoured.
	only = map[string]any{
		"bind_resource_paths": map[string]any{}, "inherit_path": "false", "inject_args": []any{}, "inject_python_args": []any{},
		"interpreter_constraints": []any{}, "pex_path": "", "pex_paths": []any{}, "venv_bin_path": "false",
		"venv_system_site_packages": false,
	}
	// honoured fields are looked at by name.
	honoured = []string{"distributions", "requirements", "inject_env"}
)

// readInfos checks both PEX-INFOs and returns the variables that they inject.
func (s *Server) readInfos(ctx context.Context, deps, source *merkle.Tree) (map[string]string, error) {
	inject := map[string]string{}
	for _, t := range []*merkle.Tree{deps, source} {
		b, err := s.loader.Read(ctx, t, infoFile, maxInfo)
		if err != nil {
			return nil, notPEX(err)
		}
		if err := checkPlace(t, t == source); err != nil {
			return nil, fmt.Errorf("%w: tree %s: %w", errRequest, t.Root(), err)
		}
		vars, err := checkInfo(b, wheelsOf(t))
		if err != nil {
			return nil, fmt.Errorf("%w: PEX-INFO of tree %s: %w", errRequest, t.Root(), err)
		}
		maps.Copy(inject, vars)
	}
	return inject, nil
}

// notPEX says that a tree is no PEX, unless its PEX-INFO could not be read.
func notPEX(err error) error {
	if errors.Is(err, loader.ErrNoFile) {
		return fmt.Errorf("%w: it is no PEX: %w", errRequest, err)
	}
	return err
}

// checkPlace refuses what would be left out: wheels are used from deps.pex alone, and sources from source.pex.
func checkPlace(t *merkle.Tree, source bool) error {
	for p := range t.Files() {
		switch {
		case source && strings.HasPrefix(p, depsDir):
			return fmt.Errorf("%s: wheels belong in deps.pex, not in source.pex", p)
		case !source && isSource(p):
			return fmt.Errorf("%s: sources belong in source.pex, not in deps.pex", p)
		}
	}
	return nil
}

// checkInfo refuses a PEX-INFO that says something that will not be so, and returns inject_env.
func checkInfo(content []byte, wheels []venv.Wheel) (map[string]string, error) {
	var fields map[string]any
	if err := json.Unmarshal(content, &fields); err != nil {
		return nil, err
	}
	if fields == nil {
		return nil, errors.New("it is not a JSON object")
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if slices.Contains(informative, name) || slices.Contains(honoured, name) {
			continue
		}
		want, known := only[name]
		if !known {
			return nil, fmt.Errorf("the field %s is not supported by the codeserver", name)
		}
		if fields[name] != nil && !reflect.DeepEqual(fields[name], want) {
			return nil, fmt.Errorf("%s is %v; the codeserver supports %v only", name, fields[name], want)
		}
	}
	var info struct {
		Distributions map[string]string `json:"distributions"`
		Requirements  []string          `json:"requirements"`
		InjectEnv     map[string]string `json:"inject_env"`
		WheelFiles    bool              `json:"deps_are_wheel_files"`
	}
	if err := json.Unmarshal(content, &info); err != nil {
		return nil, err
	}
	if len(info.Distributions) > 0 && !info.WheelFiles {
		return nil, fmt.Errorf("its distributions are not wheel files: build it with pex --no-pre-install-wheels")
	}
	if err := checkDistributions(info.Distributions, wheels); err != nil {
		return nil, err
	}
	for name, value := range info.InjectEnv {
		if err := checkVariable(name, value); err != nil {
			return nil, fmt.Errorf("inject_env: %w", err)
		}
	}
	return info.InjectEnv, checkRequirements(info.Requirements, wheels)
}

// checkDistributions checks that the wheels are those that PEX-INFO names.
func checkDistributions(named map[string]string, wheels []venv.Wheel) error {
	left := maps.Clone(named)
	for _, w := range wheels {
		if hash, ok := left[w.Filename]; !ok || hash != w.Digest.Hash() {
			return fmt.Errorf("distributions has %q for %s, whose sha256 is %s", hash, w.Filename, w.Digest.Hash())
		}
		delete(left, w.Filename)
	}
	for name := range left {
		return fmt.Errorf("distributions names %s, which is not there", name)
	}
	return nil
}

// checkRequirements checks that every wheel is required: pex activates nothing else, and the codeserver activates all.
func checkRequirements(requirements []string, wheels []venv.Wheel) error {
	required := map[string]bool{}
	for _, r := range requirements {
		end := strings.IndexFunc(r, func(c rune) bool { return strings.ContainsRune(" =<>!~;[(@", c) })
		if end < 0 {
			end = len(r)
		}
		required[venv.NormalizeName(r[:end])] = true
	}
	for _, w := range wheels {
		name, _, _ := strings.Cut(path.Base(w.Filename), "-")
		if !required[venv.NormalizeName(name)] {
			return fmt.Errorf("requirements does not name %s: pex would not activate it", w.Filename)
		}
	}
	return nil
}
