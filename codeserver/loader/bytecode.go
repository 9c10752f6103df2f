package loader

import (
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

const bytecodeDir = "__pycache__"

// reuseBytecode links what an interpreter has compiled below oldDir into dir, for the sources that both trees have at
// the same path. Bytecode names its source's time and size, which are then the same too, and Python replaces it by
// rename: neither directory's programs change what the other's read. What cannot be linked is compiled again, so that no
// failure matters.
func reuseBytecode(old *merkle.Tree, oldDir string, t *merkle.Tree, dir string) {
	files := map[string]digest.Digest{}
	for p, d := range old.Files() {
		if strings.HasSuffix(p, ".py") {
			files[p] = d
		}
	}
	same := map[string][]string{} // directory to its modules, without .py
	for p, d := range t.Files() {
		if was, ok := files[p]; ok && was == d {
			same[path.Dir(p)] = append(same[path.Dir(p)], strings.TrimSuffix(path.Base(p), ".py"))
		}
	}
	for sub, modules := range same {
		linkBytecode(filepath.Join(oldDir, sub, bytecodeDir), filepath.Join(dir, sub, bytecodeDir), modules)
	}
}

func linkBytecode(from, to string, modules []string) {
	entries, err := os.ReadDir(from)
	if err != nil {
		return
	}
	unchanged := map[string]bool{}
	for _, m := range modules {
		unchanged[m] = true
	}
	for _, e := range entries {
		// MODULE.cpython-311.pyc, MODULE.cpython-311.opt-1.pyc; a file that is being written has another ending.
		module, _, _ := strings.Cut(e.Name(), ".")
		if !unchanged[module] || !strings.HasSuffix(e.Name(), ".pyc") || !e.Type().IsRegular() {
			continue
		}
		if err := os.Mkdir(to, 0o755); err != nil && !os.IsExist(err) {
			return
		}
		_ = os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
	}
}
