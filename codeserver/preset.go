package codeserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pexpress/pexpress/codeserver/dagster"
	"github.com/pexpress/pexpress/codeserver/loader"
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

func (v *version) isDagster() bool { return v.spec.GetEntry().GetPreset() == presetDagster }

// runsDagster reports whether what a location serves is a Dagster code server.
func (s *Server) runsDagster(l *location) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.current != nil && l.current.isDagster()
}

// warmDefinitions has a Dagster code server that is ready compute its definitions, before anybody asks for them.
func warmDefinitions(ctx context.Context, l *location, v *version, run *running, r report) error {
	if !v.isDagster() {
		return nil
	}
	begin := time.Now()
	if err := dagster.Warm(ctx, run.backend, fmt.Sprintf("127.0.0.1:%d", run.port), l.name); err != nil {
		return err
	}
	r.stage("definitions", begin, loader.Stats{})
	return nil
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
