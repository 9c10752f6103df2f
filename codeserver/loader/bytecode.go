package loader

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const bytecodeDir = "__pycache__"

// linkBytecode links what an interpreter has compiled of modules whose sources are the same in both places. Bytecode names
// its source's time and size, which are then the same too, and Python replaces it by rename: neither directory's programs
// change what the other's read. What cannot be linked is compiled again, so that no failure matters.
func linkBytecode(from, to string, modules map[string]bool) {
	entries, err := os.ReadDir(from)
	if err != nil {
		return
	}
	for _, e := range entries {
		// MODULE.cpython-311.pyc, MODULE.cpython-311.opt-1.pyc; a file that is being written has another ending.
		module, _, _ := strings.Cut(e.Name(), ".")
		if !modules[module] || !strings.HasSuffix(e.Name(), ".pyc") || !e.Type().IsRegular() {
			continue
		}
		if err := os.Mkdir(to, 0o755); err != nil && !os.IsExist(err) {
			return
		}
		_ = os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
	}
}

// giveBytecode makes the directories in which an interpreter that runs as the selection's user keeps its bytecode, which
// cannot make them itself.
func (m *maker) giveBytecode() error {
	if m.sel.User == 0 {
		return nil
	}
	for n := range m.tree.Nodes() {
		if !slices.ContainsFunc(m.selected(n), func(f file) bool { return strings.HasSuffix(f.name, ".py") }) {
			continue
		}
		dir := filepath.Join(m.dir, n.Path, bytecodeDir)
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return err
		}
		if err := os.Lchown(dir, m.sel.User, m.sel.User); err != nil {
			return err
		}
	}
	return nil
}
