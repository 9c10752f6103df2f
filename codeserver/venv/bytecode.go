package venv

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/merkle"
)

// Bytecode of a wheel's module lies where an interpreter would write it, beside the module. It does not say which file it
// was made of, so that it is the same everywhere: Python sets the path that a traceback shows when it loads it. Nor does it
// say when that file was changed (PEP 552, unchecked): the files of an unpacked wheel do not change.

// compiled is the content of bytecode.json in an unpacked wheel. A wheel that has it is not compiled again.
type compiled struct {
	Magic   string   `json:"magic"`             // of the Python that the bytecode is for
	Skipped []string `json:"skipped,omitempty"` // modules that do not compile
}

// hasBytecode reports whether a wheel's bytecode for an interpreter has been made, dir being where the wheel is unpacked.
func hasBytecode(dir string, py *Interpreter) bool {
	var c compiled
	b, err := readSmall(filepath.Join(dir, "bytecode.json"))
	return err == nil && json.Unmarshal(b, &c) == nil && c.Magic == py.Magic
}

// oldestCompiled is the first minor version of Python 3 for which bytecode is made.
const oldestCompiled = 8

// compiles reports whether bytecode is made for an interpreter.
func compiles(py *Interpreter) bool {
	var n int
	_, err := fmt.Sscanf(py.Version, "3.%d", &n)
	return err == nil && n >= oldestCompiled && py.Magic != "" && py.Tag != ""
}

// modules returns the names of the modules of an unpacked wheel, relative to site.
func modules(dir string) ([]string, error) {
	site := filepath.Join(dir, "site")
	var names []string
	err := filepath.WalkDir(site, func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && p == site:
			return nil // it has scripts or data only
		case err != nil:
			return err
		case e.IsDir() && e.Name() == pycache:
			return fs.SkipDir
		case e.Type().IsRegular() && isModule(e.Name()):
			rel, err := filepath.Rel(site, p)
			names = append(names, filepath.ToSlash(rel))
			return err
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

const pycache = "__pycache__"

func isModule(name string) bool { return strings.HasSuffix(name, ".py") && name != ".py" }

// bytecodeName is where the bytecode of a module goes, as PEP 3147 says.
func bytecodeName(module, tag string) string {
	return path.Join(path.Dir(module), pycache, strings.TrimSuffix(path.Base(module), ".py")+"."+tag+".pyc")
}

// pending is bytecode of a wheel that lies in tmp.
type pending struct {
	name    string // of the wheel's directory
	dir     string
	skipped []string
	files   map[string]string // each hashed, by its name relative to site
	of      os.FileInfo       // wheel.json of the unpacked wheel that it was made of, nil if it came from elsewhere
}

// hashFiles returns each file below dir hashed, and gives it the time that all have.
func hashFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		files[filepath.ToSlash(name)] = hashOf(b)
		return errors.Join(err, os.Chtimes(p, merkle.ModTime, merkle.ModTime))
	})
	return files, err
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hashed(line("sha256", sum[:]), int64(len(b)), false)
}

// adopt moves pending bytecode, which is durable, to its wheels. A wheel is marked when all of its files are there.
func (s *Store) adopt(all []pending, py *Interpreter) error {
	var errs error
	for _, p := range all {
		if err := s.adoptOne(p, py); err != nil {
			errs = errors.Join(errs, fmt.Errorf("bytecode of wheel %s: %w", p.name, err), os.RemoveAll(p.dir))
		}
	}
	return errs
}

func (s *Store) adoptOne(p pending, py *Interpreter) error {
	s.mu.Lock() // a wheel that is staged stays where it is meanwhile
	defer s.mu.Unlock()
	dir := s.path(p.name)
	if tmp := s.staged[p.name]; tmp != "" {
		dir = tmp
	}
	if st, err := os.Stat(filepath.Join(dir, "wheel.json")); p.of != nil && (err != nil || !os.SameFile(st, p.of) || !st.ModTime().Equal(p.of.ModTime())) {
		return os.RemoveAll(p.dir) // the wheel was unpacked again meanwhile: what it was made of may have been damaged
	}
	if err := moveCaches(p.dir, filepath.Join(dir, "site")); err != nil {
		return err
	}
	// Neither is synced: one that a crash has cut short is as good as none.
	err := writeJSON(filepath.Join(dir, "bytecode-files.json"), p.files)
	if err == nil {
		err = writeJSON(filepath.Join(dir, "bytecode.json"), compiled{py.Magic, p.skipped})
	}
	if err == nil {
		s.whole[bytecodeOf(p.name)] = time.Now()
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return os.WriteFile(path, b, 0o644)
}

// moveCaches moves each directory of bytecode below from to its place below site. Where there is one already, because
// versions have run, its files are replaced one by one: a reader sees the old one or the new one.
func moveCaches(from, site string) error {
	return filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() || e.Name() != pycache {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		to := filepath.Join(site, rel)
		// It may come to be there at this moment, too.
		if err := os.Rename(p, to); err == nil {
			return fs.SkipDir
		} else if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
		if st, err := os.Lstat(to); err != nil {
			return err
		} else if !st.IsDir() {
			return fs.SkipDir // a version has put something else there: a symlink is not followed
		}
		files, err := os.ReadDir(p)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Rename(filepath.Join(p, f.Name()), filepath.Join(to, f.Name())); err != nil {
				return err
			}
		}
		return fs.SkipDir
	})
}
