package codeserver

import (
	"fmt"
	"os"
	"path/filepath"
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

var presets = []string{presetDagster, presetASGI, presetWSGI, presetModule, presetCommand}

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
	return "", nil, fmt.Errorf("%w: no preset %.40q; there are %s", errRequest, e.GetPreset(), strings.Join(presets, ", "))
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

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
