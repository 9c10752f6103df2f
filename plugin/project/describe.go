package project

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/plugin/lock"
)

// A description is what one Python project's packaging files say, whichever tool they are for.
type description struct {
	Dir            string
	Name, Version  string // Name as written; both empty when the files don't say
	Summary        string
	RequiresPython string
	Requires       []requirement
	Extras         map[string][]requirement
	Groups         map[string][]requirement
	EntryPoints    map[string]map[string]string // group → name → object reference
	// Roots are the source roots that the files say, relative; Explicit that they say it, if only that it is Dir.
	Roots    []string
	Explicit bool
	flat     bool // they name Dir itself
	// Paths are the local directories of requirements that the packaging tool's own table gives, by normalized name.
	Paths map[string]string
	// Workspace are the requirements that are members of the uv workspace.
	Workspace map[string]bool
	Warnings  []string

	pyproject *document // empty if there is none
	setupCfg  iniFile
	setupPy   map[string]any // the literals that setup() is called with
}

// describe reads dir's pyproject.toml, setup.cfg and setup.py. What one of them leaves open the next may say.
func describe(dir string) (*description, error) {
	d := &description{
		Dir: dir, Extras: map[string][]requirement{}, Groups: map[string][]requirement{},
		EntryPoints: map[string]map[string]string{}, Paths: map[string]string{}, Workspace: map[string]bool{},
	}
	pyproject, err := readOptional(filepath.Join(dir, "pyproject.toml"))
	if err != nil {
		return nil, err
	}
	if d.pyproject, err = parseTOML("pyproject.toml", pyproject); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	setupCfg, err := readOptional(filepath.Join(dir, "setup.cfg"))
	if err != nil {
		return nil, err
	}
	d.setupCfg = parseINI(string(setupCfg))
	setupPy, err := readOptional(filepath.Join(dir, "setup.py"))
	if err != nil {
		return nil, err
	}
	d.setupPy = setupCall(string(setupPy))
	d.findRoots()
	d.readProject()
	d.readPoetry()
	d.readSources()
	d.readSetupCfg()
	d.readSetupPy()
	if d.Name == "" && (setupPy != nil || d.setupCfg["metadata"] != nil) {
		d.warnf("setup.py computes the project's name, so that importlib.metadata will not know the project; "+
			"say name and version in pyproject.toml's [project], or as literals (in %s)", dir)
	}
	if d.Name != "" && d.Version == "" {
		d.dynamicVersion()
	}
	return d, nil
}

func readOptional(file string) ([]byte, error) {
	b, err := durable.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (d *description) warnf(format string, args ...any) {
	d.Warnings = append(d.Warnings, fmt.Sprintf(format, args...))
}

// readProject reads the standard [project] table and [dependency-groups].
func (d *description) readProject() {
	v, ok := lookup(d.pyproject.root, "project")
	project, isTable := v.(map[string]any)
	if ok && isTable {
		d.Name, d.Version = str(project["name"]), str(project["version"])
		d.Summary, d.RequiresPython = str(project["description"]), str(project["requires-python"])
		d.Requires = d.requirements("project.dependencies", strs(project["dependencies"]))
		for extra, list := range mapping(project["optional-dependencies"]) {
			d.Extras[lock.NormalizeName(extra)] = d.requirements("project.optional-dependencies", strs(list))
		}
		d.addEntryPoints("console_scripts", project["scripts"])
		d.addEntryPoints("gui_scripts", project["gui-scripts"])
		for group, points := range mapping(project["entry-points"]) {
			d.addEntryPoints(group, points)
		}
	}
	groups := mapping(d.pyproject.root["dependency-groups"])
	for name := range groups {
		d.Groups[lock.NormalizeName(name)] = d.group(groups, name, map[string]bool{})
	}
}

// group resolves a dependency group (PEP 735) and the groups that it includes.
func (d *description) group(groups map[string]any, name string, seen map[string]bool) []requirement {
	var reqs []requirement
	for written, list := range groups {
		if lock.NormalizeName(written) != lock.NormalizeName(name) || seen[lock.NormalizeName(name)] {
			continue
		}
		seen[lock.NormalizeName(name)] = true
		reqs = append(reqs, d.requirements("dependency-groups."+name, strs(list))...)
		items, _ := list.([]any)
		for _, item := range items {
			if included := str(mapping(item)["include-group"]); included != "" {
				reqs = append(reqs, d.group(groups, included, seen)...)
			}
		}
	}
	return reqs
}

func (d *description) requirements(where string, items []string) []requirement {
	reqs, warnings := parseRequirements(where, items)
	d.Warnings = append(d.Warnings, warnings...)
	return reqs
}

func (d *description) addEntryPoints(group string, points any) {
	for name, target := range mapping(points) {
		if s := cmp.Or(str(target), str(mapping(target)["reference"]), str(mapping(target)["callable"])); s != "" {
			if d.EntryPoints[group] == nil {
				d.EntryPoints[group] = map[string]string{}
			}
			d.EntryPoints[group][name] = s
		}
	}
}

// readSources reads [tool.uv.sources]: the requirements that are directories or workspace members.
func (d *description) readSources() {
	v, _ := lookup(d.pyproject.root, "tool", "uv", "sources")
	for name, source := range mapping(v) {
		for _, alternative := range tables(source) {
			if path := str(alternative["path"]); path != "" {
				d.Paths[lock.NormalizeName(name)] = path
			}
			if member, _ := alternative["workspace"].(bool); member {
				d.Workspace[lock.NormalizeName(name)] = true
			}
		}
	}
}

// readPoetry reads poetry's own table, as it was before poetry knew [project], and what it adds to that.
func (d *description) readPoetry() {
	v, _ := lookup(d.pyproject.root, "tool", "poetry")
	poetry := mapping(v)
	d.Name, d.Version = cmp.Or(d.Name, str(poetry["name"])), cmp.Or(d.Version, str(poetry["version"]))
	d.Summary = cmp.Or(d.Summary, str(poetry["description"]))
	dependencies := mapping(poetry["dependencies"])
	d.RequiresPython = cmp.Or(d.RequiresPython, poetrySpec(str(dependencies["python"])))
	extraOf := map[string][]string{}
	for extra, list := range mapping(poetry["extras"]) {
		for _, name := range strs(list) {
			extraOf[lock.NormalizeName(name)] = append(extraOf[lock.NormalizeName(name)], lock.NormalizeName(extra))
		}
	}
	_, standard := lookup(d.pyproject.root, "project", "dependencies")
	for _, r := range d.poetryRequirements(dependencies) {
		switch extras := extraOf[r.name]; {
		case standard: // the names are in [project]; this table says where they are
		case extras == nil:
			d.Requires = append(d.Requires, r)
		default:
			for _, extra := range extras {
				d.Extras[extra] = append(d.Extras[extra], r)
			}
		}
	}
	for name, group := range mapping(poetry["group"]) {
		d.Groups[lock.NormalizeName(name)] = append(d.Groups[lock.NormalizeName(name)], d.poetryRequirements(mapping(mapping(group)["dependencies"]))...)
	}
	d.addEntryPoints("console_scripts", poetry["scripts"])
	for group, points := range mapping(poetry["plugins"]) {
		d.addEntryPoints(group, points)
	}
}

// poetryRequirements reads a table of poetry's dependencies and notes which of them are directories.
func (d *description) poetryRequirements(m map[string]any) []requirement {
	var reqs []requirement
	for _, written := range slices.Sorted(maps.Keys(m)) {
		r := requirement{name: lock.NormalizeName(written), text: written}
		if r.name == "python" {
			continue
		}
		alternatives := tables(m[written])
		if s, ok := m[written].(string); ok {
			r.spec = poetrySpec(s)
		}
		for _, a := range alternatives {
			if path := str(a["path"]); path != "" {
				d.Paths[r.name] = path
			}
			r.extras = append(r.extras, strs(a["extras"])...)
			r.marker = cmp.Or(r.marker, str(a["markers"]))
			if str(a["python"]) != "" || str(a["platform"]) != "" || len(alternatives) > 1 {
				r.marker = cmp.Or(r.marker, conditional)
			}
			if len(alternatives) == 1 {
				r.spec = poetrySpec(str(a["version"]))
			}
		}
		reqs = append(reqs, r)
	}
	return reqs
}

// conditional stands for a condition that is not a marker: the requirement may or may not apply.
const conditional = "?"

// poetrySpec turns a constraint of poetry's into version specifiers (PEP 440); "" if it allows anything or cannot be
// said that way.
func poetrySpec(s string) string {
	var out []string
	for _, part := range splitList(s) {
		switch {
		case part == "*" || strings.Contains(part, "|"):
			return ""
		case part[0] == '^', part[0] == '~' && !strings.HasPrefix(part, "~="):
			out = append(out, bump(part[0], strings.TrimSpace(part[1:]))...)
		case strings.ContainsRune("<>=!~", rune(part[0])):
			out = append(out, part)
		default:
			out = append(out, "=="+part)
		}
	}
	return strings.Join(out, ",")
}

// bump says what "^version" and "~version" allow: from that version to the next one that may break.
func bump(operator byte, version string) []string {
	parts := strings.Split(version, ".")
	keep := min(1, len(parts)-1) // "~": the first two, or the only one
	if operator == '^' {
		for keep = 0; keep < len(parts)-1 && strings.Trim(parts[keep], "0") == ""; keep++ {
			continue
		}
	}
	n := 0
	if _, err := fmt.Sscanf(parts[keep], "%d", &n); err != nil {
		return nil
	}
	return []string{">=" + version, fmt.Sprintf("<%s", strings.Join(append(slices.Clone(parts[:keep]), fmt.Sprint(n+1)), "."))}
}

// lookup follows keys down nested tables.
func lookup(m map[string]any, keys ...string) (any, bool) {
	for i, key := range keys {
		v, ok := m[key]
		if !ok || i == len(keys)-1 {
			return v, ok
		}
		m = mapping(v)
	}
	return nil, false
}

// The packaging tools check their own tables; here a value of another type than expected counts as absent.

func str(v any) string {
	s, _ := v.(string)
	return s
}

func strs(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, item := range list {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func mapping(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// tables returns the one table or the list of tables that v is.
func tables(v any) []map[string]any {
	if m := mapping(v); m != nil {
		return []map[string]any{m}
	}
	var out []map[string]any
	list, _ := v.([]any)
	for _, item := range list {
		if m := mapping(item); m != nil {
			out = append(out, m)
		}
	}
	return out
}
