package codeserver

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// Presets: what an Entry runs.
const (
	presetDagster = "dagster"
	presetASGI    = "asgi"
	presetWSGI    = "wsgi"
	presetModule  = "module"
	presetCommand = "command"
)

// command returns what to execute for an entry.
func command(e *codeserverpb.Entry, p *prepared, port int) (program string, args []string, err error) {
	for _, a := range e.GetArgs() {
		args = append(args, strings.ReplaceAll(a, "{port}", strconv.Itoa(port)))
	}
	number := strconv.Itoa(port)
	switch e.GetPreset() {
	case presetDagster:
		return p.python, append([]string{"-m", "dagster", "api", "grpc", "--host", "127.0.0.1", "--port", number}, args...), nil
	case presetASGI:
		return p.python, append([]string{"-m", "uvicorn", "--host", "127.0.0.1", "--port", number}, args...), nil
	case presetWSGI:
		return p.python, append([]string{"-m", "gunicorn", "--bind", "127.0.0.1:" + number}, args...), nil
	case presetModule:
		return p.python, append([]string{"-m"}, args...), nil
	case presetCommand:
		return findProgram(args[0], e, p), args[1:], nil
	}
	return "", nil, fmt.Errorf("%w: preset %q; there are %s, %s, %s, %s and %s", errRequest, e.GetPreset(),
		presetDagster, presetASGI, presetWSGI, presetModule, presetCommand)
}

// findProgram resolves a command's program: a path is one in the sources, a name is looked for in the environment's
// scripts and then in the system's.
func findProgram(name string, e *codeserverpb.Entry, p *prepared) string {
	switch {
	case filepath.IsAbs(name):
		return name
	case strings.Contains(name, "/"):
		return filepath.Join(p.source, filepath.FromSlash(e.GetWorkingDirectory()), filepath.FromSlash(name))
	case name == "python" || name == "python3":
		return p.python
	}
	for _, dir := range []string{filepath.Join(p.env, "bin"), "/usr/local/bin", "/usr/bin", "/bin"} {
		if isFile(filepath.Join(dir, name)) {
			return filepath.Join(dir, name)
		}
	}
	return filepath.Join(p.env, "bin", name)
}

var (
	locationName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	pythonVersion = regexp.MustCompile(`^3\.[0-9]{1,2}$`)
	variableName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// checkDeploy refuses requests that make no sense, before anything is done about them.
func checkDeploy(req *codeserverpb.DeployRequest) error {
	spec := req.GetSpec()
	e := spec.GetEntry()
	switch {
	case !locationName.MatchString(req.GetLocation()):
		return fmt.Errorf("%w: %.80q is no name for a location: 1 to 63 letters, digits, '-', '_' or '.', starting with a letter or digit",
			errRequest, req.GetLocation())
	case spec == nil:
		return fmt.Errorf("%w: no spec", errRequest)
	case !pythonVersion.MatchString(spec.GetPython()):
		return fmt.Errorf("%w: python is a version such as 3.11, not %.40q", errRequest, spec.GetPython())
	case e.GetPreset() == "":
		return fmt.Errorf("%w: nothing says what the location runs", errRequest)
	case len(e.GetArgs()) == 0:
		return fmt.Errorf("%w: preset %s has no arguments: what to run?", errRequest, e.GetPreset())
	}
	for _, dir := range append([]string{e.GetWorkingDirectory()}, e.GetSourceRoots()...) {
		if dir != "" && (!filepath.IsLocal(dir) || path.Clean(dir) != dir) {
			return fmt.Errorf("%w: %q is not a directory inside the source tree", errRequest, dir)
		}
	}
	for name, value := range spec.GetEnv() {
		if !variableName.MatchString(name) || strings.ContainsRune(value, 0) {
			return fmt.Errorf("%w: %q is no environment variable", errRequest, name)
		}
	}
	if p := e.GetReadiness().GetHttpPath(); p != "" && !strings.HasPrefix(p, "/") {
		return fmt.Errorf("%w: the HTTP path %q does not begin with a slash", errRequest, p)
	}
	return nil
}
