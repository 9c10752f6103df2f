package project

import (
	"os"
	"path/filepath"
)

// Above returns the nearest directory above dir that has a configuration, "" if there is none, or if dir has one itself.
func Above(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil || configured(dir) {
		return ""
	}
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		if configured(parent) {
			return parent
		}
	}
	return ""
}

// configured reports whether one of the files that configure a project is in dir. What cannot be read does not count.
func configured(dir string) bool {
	for _, name := range []string{"pexpress.toml", cloudFile} {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Mode().IsRegular() {
			return true
		}
	}
	b, err := readOptional(filepath.Join(dir, "pyproject.toml"))
	if err != nil {
		return false
	}
	doc, err := parseTOML("pyproject.toml", b)
	if err != nil {
		return false
	}
	_, ok := lookup(doc.root, "tool", "pexpress")
	return ok
}
