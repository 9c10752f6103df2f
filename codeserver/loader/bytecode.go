package loader

import (
	"os"
	"path/filepath"
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
