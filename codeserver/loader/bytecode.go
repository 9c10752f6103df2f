package loader

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const bytecodeDir = "__pycache__"

// isCompiled reports whether that follows a module's name in that of its bytecode (PEP 3147, PEP 488): cpython-311.pyc,
// cpython-311.opt-1.pyc. A file that is being written has another ending.
func isCompiled(rest string) bool {
	tag, ok := strings.CutSuffix(rest, ".pyc")
	tag = strings.TrimSuffix(strings.TrimSuffix(tag, ".opt-1"), ".opt-2")
	name := strings.TrimRight(tag, "0123456789")
	return ok && name != tag && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// linkBytecode links what an interpreter has compiled of modules whose sources are the same in both places. Bytecode names
// its source's time and size, which are then the same too, and Python replaces it by rename: neither directory's programs
// change what the other's read. What cannot be linked is compiled again, so that no failure matters.
func linkBytecode(from, to string, modules map[string]bool) {
	dir, err := os.Open(from)
	if err != nil {
		return
	}
	defer dir.Close()
	// Versions write there what they like: of some Pythons' bytecode there is so much.
	entries, err := dir.ReadDir(8*len(modules) + 64)
	if err != nil {
		return
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }) // near each other on the disk, too
	for _, e := range entries {
		module, rest, _ := strings.Cut(e.Name(), ".")
		if !modules[module] || !isCompiled(rest) || !e.Type().IsRegular() {
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
