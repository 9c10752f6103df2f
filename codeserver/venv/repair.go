package venv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/once"
)

// lookAgain is how long what was read and found whole is not read again: files that look as they were written, by their size
// and time, are taken for what they were then.
const lookAgain = 10 * time.Minute

// ErrDamaged is wrapped by errors that say which file is damaged, and why it stays so.
var ErrDamaged = errors.New("it is damaged on this host, and its wheel cannot be unpacked again")

// remade is what was found not to be as it was made, and made again.
type remade struct {
	at   time.Time
	what string // for people
}

// Repair compares the files of an environment, and of its wheels, with what was unpacked and made, and makes again what
// differs. It returns what was made again since a time, by this call or another one. What runs goes on in the files that it
// has open; others are replaced at once. An error that wraps ErrDamaged says what stays as it is, because the wheel cannot be had.
//
// Bytecode that versions have written, since nobody vouches for it, is removed without a word. Files that are there beside those
// that were made stay.
func (s *Store) Repair(ctx context.Context, key digest.Digest, wheels []Wheel, py *Interpreter, cas cache.CAS, since time.Time) ([]string, error) {
	wheels, err := sortWheels(wheels)
	if err != nil {
		return nil, err
	}
	names, env := wheelDirs(wheels, py.Version), envDir(key, py.Version)
	defer s.hold(append(slices.Clone(names), env))()
	err = errors.Join(s.repairWheels(ctx, wheels, names, cas), s.repairBytecode(ctx, wheels, names))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	want := marker{Layout: envLayout, Key: key, Python: py.Path, Version: py.FullVersion, Wheels: wheels}
	_, eerr := once.Do(ctx, &s.checks, env, func() (struct{}, error) { return struct{}{}, s.repairEnv(env, want, names, py) })
	err = errors.Join(err, eerr)
	return s.remadeSince(since, names, env), err
}

// RepairWheels is Repair for what came in wheels alone. Those that are not unpacked are left out.
func (s *Store) RepairWheels(ctx context.Context, wheels []Wheel, py *Interpreter, cas cache.CAS, since time.Time) ([]string, error) {
	names := wheelDirs(wheels, py.Version)
	defer s.hold(names)()
	err := s.repairWheels(ctx, wheels, names, cas)
	return s.remadeSince(since, names, ""), err
}

// bytecodeOf is what bytecode of a wheel is noted by.
func bytecodeOf(name string) string { return name + "/bytecode" }

func (s *Store) remadeSince(since time.Time, names []string, env string) (what []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add := func(name string) {
		if r := s.remade[name]; r.at.After(since) {
			what = append(what, r.what)
		}
	}
	for _, n := range names {
		add(n)
		add(bytecodeOf(n))
	}
	add(env)
	return what
}

// noteRemade notes that something is whole now, and what it was that was not, if what is not empty.
func (s *Store) noteRemade(name, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whole[name] = time.Now()
	if what != "" {
		s.remade[name] = remade{time.Now(), what}
	}
}

// known reports whether something was found whole not long ago.
func (s *Store) known(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.whole[name]
	return ok && time.Since(at) < s.lookAgain
}

// repairWheels looks at each wheel, at half the processors: others serve meanwhile.
func (s *Store) repairWheels(ctx context.Context, wheels []Wheel, names []string, cas cache.CAS) error {
	errs := make([]error, len(wheels))
	var g errgroup.Group
	g.SetLimit(max(1, runtime.NumCPU()/2))
	for i, w := range wheels {
		g.Go(func() error {
			_, errs[i] = once.Do(ctx, &s.checks, names[i], func() (struct{}, error) { return struct{}{}, s.repairWheel(ctx, w, names[i], cas) })
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(inShort(errs), s.commit(names))
}

// inShort is the first error, and how many more there are: of each wheel of a damaged disk there may be one.
func inShort(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return fmt.Errorf("%w; and of %d more wheels", errs[0], len(errs)-1)
}

// repairWheel unpacks a wheel again if a file of it is not what it was. It has its place when it is committed.
func (s *Store) repairWheel(ctx context.Context, w Wheel, name string, cas cache.CAS) error {
	defer s.hold([]string{name})()
	s.mu.Lock()
	staged := s.staged[name] != ""
	s.mu.Unlock()
	if staged || !exists(s.path(name)) {
		return nil
	}
	known := s.known(name)
	file, err := damagedFile(ctx, s.path(name), known)
	if err != nil {
		return err
	}
	if file == "" {
		if !known {
			s.noteRemade(name, "")
		}
		return nil
	}
	damaged := strings.TrimPrefix(file, "site/") + " of " + w.Filename
	n, err := parseFilename(w.Filename)
	if err != nil {
		return err
	}
	_, err = s.unpack(ctx, n, w, name, damaged, cas)
	if errors.Is(err, digest.ErrMismatch) { // the host's copy of the wheel, which is set aside now
		_, err = s.unpack(ctx, n, w, name, damaged, cas)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", damaged, ErrDamaged, err)
	}
	return nil
}

// damagedFile returns the first file of an unpacked wheel that is not what was written, "" if there is none. Those that look
// as if they were are not read if the wheel is known.
func damagedFile(ctx context.Context, dir string, known bool) (string, error) {
	u, err := readUnpacked(dir)
	if err != nil {
		return "wheel.json", nil //nolint:nilerr // that it cannot be read is what is asked for
	}
	buf := make([]byte, 128<<10)
	dirs := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(u.Files)) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		for up := path.Dir(name); !dirs[up]; up = path.Dir(up) {
			dirs[up] = true
			if !enterable(filepath.Join(dir, filepath.FromSlash(up))) {
				return up, nil
			}
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		if !isBytecode(name) && !(known && looks(file, u.Files[name])) && !holds(file, u.Files[name], buf) { // Python replaces bytecode
			return name, nil
		}
	}
	return "", nil
}

// repairEnv makes the named environment beside it, and puts it in its place if that differs.
func (s *Store) repairEnv(name string, want marker, dirs []string, py *Interpreter) error {
	defer s.hold(append(slices.Clone(dirs), name))()
	tmp, err := os.MkdirTemp(s.path("tmp"), "env-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := s.build(tmp, name, &want, dirs, py); err != nil {
		return err
	}
	differs := ""
	err = filepath.WalkDir(tmp, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(tmp, p)
		if err != nil {
			return err
		}
		there := s.path(name, rel)
		if isBytecode(filepath.ToSlash(rel)) {
			return linkAgain(p, there)
		}
		if !exists(there) && !s.shipped(p) {
			return nil // a version has put it into the wheel since
		}
		if !sameEntry(p, there, e) {
			differs = filepath.ToSlash(rel) + " of the environment"
			return fs.SkipAll
		}
		return nil
	})
	if err != nil || differs == "" {
		return err
	}
	if err := s.publishEnv(tmp, name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remade[name] = remade{time.Now(), differs}
	return nil
}

// shipped reports whether what an environment has at a path came with a wheel, if it is a link into one, and true if it is none.
func (s *Store) shipped(path string) bool {
	to, err := os.Readlink(path)
	if err != nil {
		return true
	}
	rel, err := filepath.Rel(s.path("wheels"), to)
	if err != nil || !filepath.IsLocal(rel) {
		return true
	}
	wheel, name, _ := strings.Cut(filepath.ToSlash(rel), "/")
	u, err := readUnpacked(s.path("wheels", wheel))
	if err != nil {
		return true
	}
	for file := range u.Files {
		if file == name || strings.HasPrefix(file, name+"/") {
			return true
		}
	}
	return false
}

// linkAgain has the link to a wheel's bytecode stand where an interpreter has put its own.
func linkAgain(link, there string) error {
	to, err := os.Readlink(link)
	if err != nil {
		return err
	}
	if is, err := os.Readlink(there); err == nil && is == to {
		return nil
	}
	if err := os.RemoveAll(there); err != nil {
		return err
	}
	if err := os.Symlink(to, there); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // an interpreter has put its own there once more, or the whole directory is to be made again
}

// sameEntry reports whether b is what a is: a directory, a symlink to the same place, or a file with the same content.
func sameEntry(a, b string, e fs.DirEntry) bool {
	st, err := os.Lstat(b)
	if err != nil || st.Mode().Type() != e.Type() {
		return false
	}
	switch e.Type() {
	case fs.ModeDir:
		return st.Mode()&0o555 == 0o555
	case fs.ModeSymlink:
		toA, errA := os.Readlink(a)
		toB, errB := os.Readlink(b)
		return errA == nil && errB == nil && toA == toB
	}
	equal, err := equalFiles(a, b)
	made, ierr := e.Info()
	return err == nil && ierr == nil && equal && st.Mode()&0o555 == made.Mode()&0o555
}
