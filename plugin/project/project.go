// Package project reads what a Python project says about itself: its configuration, its locations, the files that
// make up source.pex, and the requirements that its lock has to hold.
//
// The configuration is `[tool.pexpress]` in pyproject.toml or the same keys in pexpress.toml, and a Dagster Cloud
// project's dagster_cloud.yaml as it is. docs/configuration.md describes it for users. Nothing here runs the project's
// code: setup.py is scanned for literals.
package project

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/lazy"
)

// DefaultLock is the name of the lock file unless the configuration says another.
const DefaultLock = "pylock.toml"

// A Project is a directory with Python code and what its configuration says.
type Project struct {
	// Dir is the project's directory, absolute.
	Dir string
	// Name is the project's name as its packaging says it, or the directory's.
	Name string
	// Locations are what can be deployed, by name; always at least one.
	Locations []Location
	// Python is the version to build for and run with, such as "3.11"; empty if neither the configuration nor
	// .python-version says one.
	Python string
	// Platforms are the tags of the platforms to lock for, and Platform the first of them, the one to build for. Empty
	// if not configured.
	Platforms []string
	Platform  string
	// Lock is the project's lock file, relative to Dir; Extras and Groups are the optional requirements that are part
	// of it. A location may have its own.
	Lock           string
	Extras, Groups []string
	// Outputs are further trees that plugins make, by name.
	Outputs []Output
	// Cache and Codeserver are addresses; empty if not configured.
	Cache, Codeserver string
	// Warnings are about settings that have no effect here.
	Warnings []string

	filter *filter

	mu     sync.Mutex // guards graphs
	graphs map[string]*graph
}

// A Location is one deployable service of a project.
type Location struct {
	Name string
	// Entry is what to run. Its Preset is empty when the configuration has none: see [Location.CheckEntry].
	Entry Entry
	// Env are environment variables of the process.
	Env map[string]string
	// SecretEnv names the secrets, of those that the codeserver's operator gives to the location, that become variables of
	// the process; sorted.
	SecretEnv []string
	Limits    Limits
	// Cold has each version start by itself, not forked from a process with its dependencies imported.
	Cold bool
	// Listen is the stable address, host:port, or empty.
	Listen string
	// Dir is the directory whose layout source.pex has, absolute: the project's, or one below it.
	Dir string
	// Lock is the lock file, relative to the project's directory: the configured one, else pylock.toml in Dir.
	Lock string
	// Extras and Groups are the optional requirements that are part of the location.
	Extras, Groups []string

	roots []string // configured source roots; nil means: find them
}

// Entry says what a version's process runs. It mirrors the message of that name in the codeserver's protocol, but for
// the source roots, which [Project.Sources] finds.
type Entry struct {
	// Preset is "dagster", "asgi", "wsgi", "module" or "command".
	Preset string
	// Args depends on the preset: the flags of `dagster api grpc` that name the definitions; "module:attribute" for
	// asgi and wsgi; a module or a program and its arguments.
	Args []string
	// WorkingDirectory is the directory to start in, relative to Location.Dir; empty is Location.Dir itself.
	WorkingDirectory string
	Readiness        Readiness
}

// Readiness says when a version can serve; the zero value leaves it to the preset. At most one field is set.
type Readiness struct {
	GRPCService *string // name of a service of the gRPC health protocol; "" is the whole server
	HTTPPath    string
	TCP         bool
}

// Location returns the location of that name; the only one if name is empty.
func (p *Project) Location(name string) (*Location, error) {
	var names []string
	for i := range p.Locations {
		if p.Locations[i].Name == name || name == "" && len(p.Locations) == 1 {
			return &p.Locations[i], nil
		}
		names = append(names, p.Locations[i].Name)
	}
	if name == "" {
		return nil, fmt.Errorf("%s has several locations, name one of them: %s", p.Dir, strings.Join(names, ", "))
	}
	if !configured(p.Dir) {
		return nil, fmt.Errorf("%s has no location %q: no configuration is there, neither [tool.pexpress] in pyproject.toml nor pexpress.toml or %s, "+
			"so that all it has is named %s", p.Dir, name, cloudFile, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("%s has no location %q; its locations are %s", p.Dir, name, strings.Join(names, ", "))
}

// CheckEntry returns an error that teaches how to say what to run, unless the configuration says it.
func (l *Location) CheckEntry() error {
	if l.Entry.Preset != "" {
		return nil
	}
	return fmt.Errorf(`nothing says what location %[1]q runs; add this to pyproject.toml

    [tool.pexpress.location.%[1]s]
    preset = "asgi"        # or "wsgi", "dagster", "module", "command"
    app = "module:name"    # dagster: module = "…"   module: module = "…"   command: args = ["…"]

or, for Dagster, add a dagster_cloud.yaml`, l.Name)
}

// Load reads the project in dir.
func Load(dir string) (*Project, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	about, err := describe(dir)
	if err != nil {
		return nil, err
	}
	p := &Project{Dir: dir, Name: about.Name, graphs: map[string]*graph{}}
	if p.Name == "" {
		p.Name = safeName(filepath.Base(dir))
	}
	doc, own, err := ownConfig(dir, about.pyproject)
	if err != nil {
		return nil, err
	}
	cloud, err := readDagsterCloud(dir)
	if err != nil {
		return nil, err
	}
	p.Warnings = append(p.Warnings, cloud.warnings...)
	p.configure(own, cloud.locations)
	if err := errors.Join(doc.errs...); err != nil {
		return nil, err
	}
	if p.Python == "" {
		p.Python = pythonVersionFile(dir)
	}
	return p, nil
}

// ownConfig returns the project's own configuration, an empty table if there is none.
func ownConfig(dir string, pyproject *document) (*document, *table, error) {
	file := filepath.Join(dir, "pexpress.toml")
	tool, inPyproject := lookup(pyproject.root, "tool", "pexpress")
	b, err := durable.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		m, ok := tool.(map[string]any)
		if inPyproject && !ok {
			pyproject.errorf("tool.pexpress", "must be a table, it is %s", typeName(tool))
		}
		return pyproject, pyproject.table("tool.pexpress", m), nil
	}
	if err != nil {
		return nil, nil, err
	}
	if inPyproject {
		return nil, nil, fmt.Errorf("%s is configured twice: in pexpress.toml and in pyproject.toml's [tool.pexpress]; "+
			"move the settings into one of them", dir)
	}
	doc, err := parseTOML("pexpress.toml", b)
	if err != nil {
		return nil, nil, err
	}
	return doc, doc.table("", doc.root), nil
}

var exactPython = lazy.Regexp(`^([0-9]+\.[0-9]+)(\.[0-9]+)?$`)

// pythonVersionFile returns the minor version that .python-version names, or "" if it names none exactly.
func pythonVersionFile(dir string) string {
	b, err := durable.ReadFile(filepath.Join(dir, ".python-version"))
	if err != nil {
		return ""
	}
	m := exactPython().FindStringSubmatch(strings.TrimSpace(string(b)))
	if m == nil {
		return ""
	}
	return m[1]
}

// locationName is what the codeserver accepts.
var locationName = lazy.Regexp(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// safeName makes a location's name of a directory's.
func safeName(s string) string {
	s = strings.Trim(regexp.MustCompile(`[^A-Za-z0-9._-]+`).ReplaceAllString(s, "-"), "-._")
	if s = s[:min(len(s), 63)]; s == "" {
		return "project"
	}
	return s
}
