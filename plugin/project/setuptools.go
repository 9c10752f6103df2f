package project

import (
	"cmp"
	"strings"

	"github.com/pexpress/pexpress/plugin/lock"
)

// An iniFile is setup.cfg: section → key → value, as Python's configparser reads it.
type iniFile map[string]map[string]string

func parseINI(text string) iniFile {
	f := iniFile{}
	var section map[string]string
	key := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		body := strings.TrimLeft(line, " \t")
		switch {
		case body == "" || body[0] == '#' || body[0] == ';':
			continue
		case body != line && key != "": // indented: goes on with the value above
			section[key] += "\n" + body
		case body[0] == '[':
			name, _, _ := strings.Cut(body[1:], "]")
			if f[name] == nil {
				f[name] = map[string]string{}
			}
			section, key = f[name], ""
		case section != nil:
			i := strings.IndexAny(body, "=:")
			if i < 0 {
				key = ""
				continue
			}
			key = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(body[:i])), "-", "_")
			section[key] = strings.TrimSpace(body[i+1:])
		}
	}
	return f
}

// pairs reads "name = value" lines.
func pairs(s string) map[string]any {
	out := map[string]any{}
	for _, line := range splitLines(s) {
		if name, value, ok := strings.Cut(line, "="); ok {
			out[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return out
}

// readSetupCfg reads setuptools' declarative configuration.
func (d *description) readSetupCfg() {
	metadata, options := d.setupCfg["metadata"], d.setupCfg["options"]
	d.Name = cmp.Or(d.Name, metadata["name"])
	d.Summary = cmp.Or(d.Summary, metadata["description"])
	d.RequiresPython = cmp.Or(d.RequiresPython, options["python_requires"])
	if version := metadata["version"]; d.Version == "" && !strings.HasPrefix(version, "attr:") && !strings.HasPrefix(version, "file:") {
		d.Version = version
	}
	if d.dependenciesKnown() {
		return
	}
	d.Requires = d.requirements("setup.cfg: install_requires", splitLines(options["install_requires"]))
	for extra, list := range d.setupCfg["options.extras_require"] {
		d.Extras[lock.NormalizeName(extra)] = d.requirements("setup.cfg: extras_require", splitLines(list))
	}
	for group, points := range d.setupCfg["options.entry_points"] {
		d.addEntryPoints(group, pairs(points))
	}
}

// dependenciesKnown reports whether a more authoritative file has said what is required, so that those that follow
// are not asked.
func (d *description) dependenciesKnown() bool {
	_, project := lookup(d.pyproject.root, "project", "name")
	_, poetry := lookup(d.pyproject.root, "tool", "poetry", "name")
	return (project || poetry) && !d.dynamic("dependencies")
}

// dynamic reports whether [project] leaves the field to the build backend.
func (d *description) dynamic(field string) bool {
	v, _ := lookup(d.pyproject.root, "project", "dynamic")
	for _, s := range strs(v) {
		if s == field {
			return true
		}
	}
	return false
}

// readSetupPy takes the literals that a setup.py passes to setup().
func (d *description) readSetupPy() {
	d.Name = cmp.Or(d.Name, str(d.setupPy["name"]))
	d.Version = cmp.Or(d.Version, str(d.setupPy["version"]))
	d.Summary = cmp.Or(d.Summary, str(d.setupPy["description"]))
	d.RequiresPython = cmp.Or(d.RequiresPython, str(d.setupPy["python_requires"]))
	if d.dependenciesKnown() || d.Requires != nil {
		return
	}
	d.Requires = d.requirements("setup.py: install_requires", oneOrMore(d.setupPy["install_requires"]))
	for extra, list := range mapping(d.setupPy["extras_require"]) {
		d.Extras[lock.NormalizeName(extra)] = d.requirements("setup.py: extras_require", oneOrMore(list))
	}
	for group, points := range mapping(d.setupPy["entry_points"]) {
		d.addEntryPoints(group, pairs(strings.Join(oneOrMore(points), "\n")))
	}
}

// oneOrMore returns the strings of a list, or the lines of one string.
func oneOrMore(v any) []string {
	if s, ok := v.(string); ok {
		return splitLines(s)
	}
	return strs(v)
}
