package project

import (
	"cmp"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/lazy"
)

// unknownVersion is the version of a project whose build backend would ask version control for it.
const unknownVersion = "0+unknown"

// dynamicVersion finds a version that [project] or setup.cfg leaves to the build backend, as far as a file says it.
func (d *description) dynamicVersion() {
	tool := mapping(d.pyproject.root["tool"])
	at := func(keys ...string) map[string]any {
		v, _ := lookup(tool, keys...)
		return mapping(v)
	}
	setuptools := at("setuptools", "dynamic", "version")
	d.Version = cmp.Or(
		d.versionAttr(str(setuptools["attr"])),
		d.versionFile(append(strs(setuptools["file"]), str(setuptools["file"]))),
		d.versionSetupCfg(d.setupCfg["metadata"]["version"]),
		d.versionPattern(str(at("hatch", "version")["path"]), str(at("hatch", "version")["pattern"])),
		d.versionPattern(str(at("pdm", "version")["path"]), ""),
		d.versionFlit(),
		d.versionPkgInfo(),
	)
	if d.Version == "" {
		d.Version = unknownVersion
		d.warnf("the version of %s is computed when it is built; importlib.metadata will say %s (a literal version in "+
			"pyproject.toml's [project] avoids that)", d.Name, unknownVersion)
	}
}

// versionAttr resolves setuptools' `attr = "package.module.NAME"` without importing anything.
func (d *description) versionAttr(attr string) string {
	i := strings.LastIndexByte(attr, '.')
	if i < 0 {
		return ""
	}
	module, name := filepath.FromSlash(strings.ReplaceAll(attr[:i], ".", "/")), attr[i+1:]
	for _, root := range append(d.sourceRoots(), ".") {
		for _, file := range []string{module + ".py", filepath.Join(module, "__init__.py")} {
			b, err := durable.ReadFile(filepath.Join(d.Dir, root, file))
			if err != nil {
				continue
			}
			if version, ok := assignment(string(b), name); ok {
				return version
			}
		}
	}
	return ""
}

func (d *description) versionFile(names []string) string {
	for _, name := range names {
		if name == "" || !filepath.IsLocal(name) {
			continue
		}
		if b, err := durable.ReadFile(filepath.Join(d.Dir, name)); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return ""
}

func (d *description) versionSetupCfg(directive string) string {
	if attr, ok := strings.CutPrefix(directive, "attr:"); ok {
		return d.versionAttr(strings.TrimSpace(attr))
	}
	if file, ok := strings.CutPrefix(directive, "file:"); ok {
		return d.versionFile(splitList(file))
	}
	return ""
}

// versionPattern finds the version in a file by hatch's regular expression, or the default one.
func (d *description) versionPattern(file, pattern string) string {
	if file == "" || !filepath.IsLocal(file) {
		return ""
	}
	b, err := durable.ReadFile(filepath.Join(d.Dir, filepath.FromSlash(file)))
	if err != nil {
		return ""
	}
	if pattern == "" {
		pattern = `(?i)^(?:__version__|VERSION)(?: ?: ?str)? *= *(?:'v?(?P<version>[^'\n]+)'|"v?(?P<version2>[^"\n]+)")`
	}
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return ""
	}
	m := re.FindStringSubmatch(string(b))
	if m == nil {
		return ""
	}
	version := ""
	for i, name := range re.SubexpNames() {
		if strings.HasPrefix(name, "version") {
			version = cmp.Or(version, m[i])
		}
	}
	return version
}

// versionFlit finds __version__ in the module itself, which is where flit keeps it.
func (d *description) versionFlit() string {
	backend, _ := lookup(d.pyproject.root, "build-system", "build-backend")
	if !strings.HasPrefix(str(backend), "flit") {
		return ""
	}
	module, _ := lookup(d.pyproject.root, "tool", "flit", "module", "name")
	return d.versionAttr(cmp.Or(str(module), strings.ReplaceAll(d.Name, "-", "_")) + ".__version__")
}

var pkgInfoVersion = lazy.Regexp(`(?m)^Version: (\S+)\s*$`)

// versionPkgInfo reads the PKG-INFO that an unpacked source distribution has.
func (d *description) versionPkgInfo() string {
	b, err := durable.ReadFile(filepath.Join(d.Dir, "PKG-INFO"))
	if err != nil {
		return ""
	}
	if m := pkgInfoVersion().FindStringSubmatch(string(b)); m != nil {
		return m[1]
	}
	return ""
}
