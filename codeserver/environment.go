package codeserver

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// passed are the codeserver's own variables that versions see; nothing else of its environment reaches them.
var passed = []string{"HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}

// environment returns the variables of a version's process. Its own come after the base, and can replace them.
func environment(spec *codeserverpb.VersionSpec, p *prepared, port int) []string {
	vars := map[string]string{"LANG": "C.UTF-8"}
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			vars[name] = v
		}
	}
	vars["PATH"] = filepath.Join(p.env, "bin") + ":/usr/local/bin:/usr/bin:/bin"
	vars["VIRTUAL_ENV"] = p.env
	vars["PYTHONUNBUFFERED"] = "1"
	vars["PYTHONNOUSERSITE"] = "1"
	for name, value := range p.inject {
		vars[name] = value
	}
	for name, value := range spec.GetEnv() {
		vars[name] = value
	}
	for name, dir := range p.outputs {
		vars[outputVariable(name)] = dir
	}
	for name, value := range p.secrets {
		vars[name] = value
	}
	vars["PORT"] = fmt.Sprint(port)
	vars["PYTHONPATH"] = pythonPath(spec.GetEntry(), p.source, vars["PYTHONPATH"])
	var env []string
	for name, value := range vars {
		env = append(env, name+"="+value)
	}
	return env
}

// environ returns the variables of a version's process, those of its user among them.
func (s *Server) environ(spec *codeserverpb.VersionSpec, p *prepared, port int) []string {
	env := environment(spec, p, port)
	if p.user == 0 {
		return env
	}
	own := map[string]string{"HOME": s.home(), "USER": "pexpress", "TMPDIR": ""}
	env = slices.DeleteFunc(env, func(e string) bool {
		name, value, _ := strings.Cut(e, "=")
		_, ok := own[name]
		return ok && value == os.Getenv(name) // not if it is the location's own
	})
	for name, value := range own {
		if value != "" && !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// outputVariable names the variable that says where a further tree is.
func outputVariable(name string) string {
	return "PEXPRESS_OUTPUT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// pythonPath returns the source roots, the tree's root, and what the version's own environment adds.
func pythonPath(e *codeserverpb.Entry, source, more string) string {
	var dirs []string
	for _, root := range e.GetSourceRoots() {
		dirs = append(dirs, filepath.Join(source, filepath.FromSlash(root)))
	}
	dirs = append(dirs, source)
	if more != "" {
		dirs = append(dirs, more)
	}
	return strings.Join(dirs, ":")
}
