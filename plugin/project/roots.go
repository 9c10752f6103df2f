package project

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// findRoots reads from the packaging files which directories hold the importable code.
func (d *description) findRoots() {
	d.setuptoolsRoots()
	d.hatchRoots()
	d.otherRoots()
	d.setupCfgRoots()
	d.setupPyRoots()
}

// addRoot notes a directory that the packaging files name.
func (d *description) addRoot(root string) {
	d.Explicit = true
	root = filepath.ToSlash(filepath.Clean(filepath.FromSlash(root)))
	d.flat = d.flat || root == "."
	if root != "." && filepath.IsLocal(root) && !slices.Contains(d.Roots, root) {
		d.Roots = append(d.Roots, root)
	}
}

// addPackageDir notes a setuptools package_dir: the root for package "", or one package's directory, which says a
// root if it ends in the package's name.
func (d *description) addPackageDir(pkg, dir string) {
	if pkg == "" {
		d.addRoot(dir)
		return
	}
	root, ok := strings.CutSuffix("./"+strings.TrimSuffix(filepath.ToSlash(dir), "/"), "/"+strings.ReplaceAll(pkg, ".", "/"))
	if !ok {
		d.warnf("package %s lies in %s, a directory of another name, and will not be importable (in %s)", pkg, dir, d.Dir)
		return
	}
	d.addRoot(root)
}

func (d *description) setuptoolsRoots() {
	v, _ := lookup(d.pyproject.root, "tool", "setuptools")
	setuptools := mapping(v)
	for pkg, dir := range mapping(setuptools["package-dir"]) {
		d.addPackageDir(pkg, str(dir))
	}
	find := mapping(mapping(setuptools["packages"])["find"])
	for _, where := range strs(find["where"]) {
		d.addRoot(where)
	}
}

func (d *description) hatchRoots() {
	for _, keys := range [][]string{{"tool", "hatch", "build"}, {"tool", "hatch", "build", "targets", "wheel"}} {
		v, _ := lookup(d.pyproject.root, keys...)
		build := mapping(v)
		for _, pkg := range strs(build["packages"]) {
			d.addRoot(filepath.Dir(filepath.FromSlash(strings.TrimSuffix(pkg, "/"))))
		}
		for _, source := range strs(build["sources"]) {
			d.addRoot(source)
		}
		for source, to := range mapping(build["sources"]) {
			if str(to) == "" {
				d.addRoot(source)
			}
		}
		for _, dir := range strs(build["dev-mode-dirs"]) {
			d.addRoot(dir)
		}
	}
}

// otherRoots reads the backends that say the root in one key.
func (d *description) otherRoots() {
	tool := mapping(d.pyproject.root["tool"])
	for _, p := range tables(mapping(tool["poetry"])["packages"]) {
		d.addRoot(cmp.Or(str(p["from"]), "."))
	}
	for _, keys := range [][]string{{"uv", "build-backend", "module-root"}, {"pdm", "build", "package-dir"}, {"maturin", "python-source"}} {
		if v, ok := lookup(tool, keys...); ok {
			d.addRoot(cmp.Or(str(v), "."))
		}
	}
}

func (d *description) setupCfgRoots() {
	for pkg, dir := range pairs(d.setupCfg["options"]["package_dir"]) {
		d.addPackageDir(pkg, str(dir))
	}
	for _, where := range splitLines(d.setupCfg["options.packages.find"]["where"]) {
		d.addRoot(where)
	}
}

func (d *description) setupPyRoots() {
	for pkg, dir := range mapping(d.setupPy["package_dir"]) {
		if s := str(dir); s != "" {
			d.addPackageDir(pkg, s)
		}
	}
	if find, ok := d.setupPy["packages"].(pyCall); ok {
		where := str(find.keywords["where"])
		if len(find.args) > 0 {
			where = cmp.Or(where, str(find.args[0]))
		}
		if where != "" {
			d.addRoot(where)
		}
	}
}

// sourceRoots returns the directories to import from, but for Dir itself. When no file says, a `src` directory with
// code in it that is not a package itself is one.
func (d *description) sourceRoots() []string {
	if d.Explicit {
		slices.Sort(d.Roots)
		return d.Roots
	}
	src := filepath.Join(d.Dir, "src")
	entries, err := os.ReadDir(src)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.Name() == "__init__.py" {
			return nil
		}
	}
	if !holdsPython(src, 3) {
		return nil
	}
	return []string{"src"}
}

// holdsPython reports whether there is a Python file in dir, at most depth directories down.
func holdsPython(dir string, depth int) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".py") || e.IsDir() && depth > 0 && holdsPython(filepath.Join(dir, e.Name()), depth-1) {
			return true
		}
	}
	return false
}
