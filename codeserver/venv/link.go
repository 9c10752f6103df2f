package venv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// source is a file or directory of an unpacked wheel.
type source struct {
	order int // of its wheel, sorted by file name
	wheel string
	path  string
	dir   bool
}

// linker merges directories of wheels into an environment that is being made. Paths are slash-separated and relative
// to the environment.
type linker struct {
	root     string
	site     string              // where modules are imported from
	tag      string              // in names of bytecode files
	reserved map[string]bool     // the environment's own: nothing of a wheel stands there
	real     map[string][]source // directories that are never a symlink, and what is merged into them
	warnings []string
}

// mount says that dir is a real directory into which the sources are merged.
func (l *linker) mount(dir string, sources ...source) {
	for up := dir; up != "."; up = path.Dir(up) {
		if _, ok := l.real[up]; !ok {
			l.real[up] = nil
		}
	}
	l.real[dir] = append(l.real[dir], sources...)
}

func (l *linker) warn(format string, args ...any) {
	l.warnings = append(l.warnings, fmt.Sprintf(format, args...))
}

// merge makes what the directories in sources hold, and the real directories below rel, appear in rel.
func (l *linker) merge(rel string, sources []source) error {
	children, err := l.children(rel, sources)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(children)) {
		if err := l.place(path.Join(rel, name), children[name]); err != nil {
			return err
		}
	}
	return nil
}

// children maps each name in rel to those who provide it, in the order of their wheels.
func (l *linker) children(rel string, sources []source) (map[string][]source, error) {
	children := map[string][]source{}
	for _, s := range sources {
		entries, err := os.ReadDir(s.path)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			// It is for the files beside it. A merged directory has one of its own.
			if e.Name() == pycache {
				continue
			}
			children[e.Name()] = append(children[e.Name()], source{s.order, s.wheel, filepath.Join(s.path, e.Name()), e.IsDir()})
		}
	}
	for dir, mounted := range l.real {
		if dir != "." && path.Dir(dir) == rel {
			children[path.Base(dir)] = append(children[path.Base(dir)], mounted...)
		}
	}
	for _, c := range children {
		slices.SortStableFunc(c, func(a, b source) int { return a.order - b.order })
	}
	return children, nil
}

// place makes rel out of those who provide it. The last one says whether it is a file or a directory, and a file's
// content.
func (l *linker) place(rel string, sources []source) error {
	if l.reserved[rel] {
		for _, s := range sources {
			l.warn("%s: %s is the environment's own and is left out", s.wheel, rel)
		}
		return nil
	}
	_, isReal := l.real[rel]
	isDir := isReal || sources[len(sources)-1].dir
	same := slices.DeleteFunc(slices.Clone(sources), func(s source) bool { return s.dir != isDir })
	for _, s := range sources {
		if s.dir != isDir {
			l.warn("%s: %s is a file in one wheel and a directory in another; it is left out", s.wheel, rel)
		}
	}
	if isDir && (isReal || len(same) > 1) {
		if err := mkdir(filepath.Join(l.root, rel)); err != nil {
			return err
		}
		return l.merge(rel, same)
	}
	used := same[len(same)-1]
	for _, s := range same[:len(same)-1] {
		equal, err := equalFiles(s.path, used.path)
		if err != nil {
			return err
		}
		if !equal {
			l.warn("%s: %s differs from that of %s, which is used", s.wheel, rel, used.wheel)
		}
	}
	if isModule(path.Base(rel)) && strings.HasPrefix(rel, l.site+"/") && l.tag != "" {
		if err := l.linkBytecode(rel, used.path); err != nil {
			return err
		}
	}
	return os.Symlink(used.path, filepath.Join(l.root, rel))
}

// linkBytecode has a module of a merged directory use the bytecode of its wheel. There may be none yet: to Python it is as
// if there were no file, and one that it writes replaces the link.
func (l *linker) linkBytecode(rel, module string) error {
	at := filepath.Join(l.root, bytecodeName(rel, l.tag))
	if err := os.Mkdir(filepath.Dir(at), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Chmod(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.Symlink(bytecodeName(module, l.tag), at)
}

func equalFiles(a, b string) (bool, error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		na, errA := io.ReadFull(fa, bufA)
		nb, errB := io.ReadFull(fb, bufB)
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return false, err
			}
		}
		if !bytes.Equal(bufA[:na], bufB[:nb]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			return (errA != nil) == (errB != nil), nil
		}
	}
}
