package venv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/once"
)

// Repair compares every file of an environment, and of its wheels, with what was unpacked and made, and makes again what
// differs. It returns what that was, for people. Bytecode that nobody vouches for, since versions wrote it, is removed.
// What runs goes on in the files that it has open; others are replaced at once. An error says what is damaged and stays so,
// because the wheel cannot be had.
func (s *Store) Repair(ctx context.Context, key digest.Digest, wheels []Wheel, py *Interpreter, cas cache.CAS) (damaged []string, err error) {
	if damaged, err = s.RepairWheels(ctx, wheels, py, cas); err != nil {
		return damaged, err
	}
	sorted, err := sortWheels(wheels)
	if err != nil {
		return damaged, err
	}
	name := envDir(key, py.Version)
	dirs := make([]string, len(sorted))
	for i, w := range sorted {
		dirs[i] = wheelDir(w, py.Version)
	}
	defer s.hold(append(slices.Clone(dirs), name))()
	for i, w := range sorted {
		removed, err := s.removeBytecode(dirs[i])
		if err != nil {
			return damaged, err
		}
		if removed != "" {
			s.repairs.Add(1)
			damaged = append(damaged, removed+" of "+w.Filename)
		}
	}
	want := marker{Layout: envLayout, Key: key, Python: py.Path, Version: py.FullVersion, Wheels: sorted}
	differs := ""
	for looked := false; !looked; { // not if this waits for the end of an Env
		_, err = once.Do(ctx, &s.envs, name, func() (made, error) {
			var e *Env
			var err error
			looked = true
			e, differs, err = s.repairEnv(name, want, dirs, py)
			return made{e, want}, err
		})
		if ctx.Err() != nil {
			return damaged, ctx.Err()
		}
	}
	if differs != "" {
		damaged = append(damaged, differs+" of the environment")
	}
	return damaged, err
}

// Repairs counts what was found to be damaged since the store was opened. Where it has grown since something did not start,
// that may start now, whoever has found it.
func (s *Store) Repairs() int64 { return s.repairs.Load() }

// RepairWheels is Repair for what came in the wheels alone. Those that are not unpacked are left out.
func (s *Store) RepairWheels(ctx context.Context, wheels []Wheel, py *Interpreter, cas cache.CAS) (damaged []string, err error) {
	names, found, errs := make([]string, len(wheels)), make([]string, len(wheels)), make([]error, len(wheels))
	for i, w := range wheels {
		names[i] = wheelDir(w, py.Version)
	}
	defer s.hold(names)()
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, w := range wheels {
		g.Go(func() error {
			found[i], errs[i] = once.Do(ctx, &s.checks, names[i], func() (string, error) { return s.repairWheel(ctx, w, names[i], cas) })
			return nil
		})
	}
	_ = g.Wait()
	found = slices.DeleteFunc(found, func(f string) bool { return f == "" })
	return found, errors.Join(errors.Join(errs...), s.commit(names))
}

// repairWheel unpacks a wheel again if a file of it is damaged, and returns that file. It has its place when it is committed.
func (s *Store) repairWheel(ctx context.Context, w Wheel, name string, cas cache.CAS) (string, error) {
	s.mu.Lock()
	staged := s.staged[name] != ""
	s.mu.Unlock()
	if staged || !exists(s.path(name)) {
		return "", nil
	}
	file, err := damagedFile(ctx, s.path(name))
	if err != nil || file == "" {
		return "", err
	}
	s.repairs.Add(1)
	damaged := strings.TrimPrefix(file, "site/") + " of " + w.Filename
	n, err := parseFilename(w.Filename)
	if err == nil {
		_, err = s.unpack(ctx, n, w, name, cas)
	}
	if err != nil {
		return damaged, fmt.Errorf("%s is damaged on this host, and cannot be unpacked again: %w", damaged, err)
	}
	return damaged, nil
}

// damagedFile returns the first file of an unpacked wheel that is not what was written, "" if there is none.
func damagedFile(ctx context.Context, dir string) (string, error) {
	u, err := readUnpacked(dir)
	if err != nil {
		return "wheel.json", nil //nolint:nilerr // that it cannot be read is what is asked for
	}
	buf := make([]byte, 128<<10)
	for _, name := range slices.Sorted(maps.Keys(u.Files)) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		bytecode := path.Base(path.Dir(name)) == pycache // which Python may have replaced
		if !bytecode && !holds(filepath.Join(dir, filepath.FromSlash(name)), u.Files[name], buf) {
			return name, nil
		}
	}
	return "", nil
}

// removeBytecode removes what is not the bytecode that was made for an unpacked wheel, and returns the first such file. If
// any that was made is missing then, it is to be made again.
func (s *Store) removeBytecode(name string) (first string, err error) {
	s.mu.Lock() // none comes meanwhile
	defer s.mu.Unlock()
	dir := s.path(name)
	var made map[string]string
	b, err := os.ReadFile(filepath.Join(dir, "bytecode-files.json"))
	if err != nil || json.Unmarshal(b, &made) != nil {
		made = nil
	}
	buf := make([]byte, 128<<10)
	site := filepath.Join(dir, "site")
	err = filepath.WalkDir(site, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() || filepath.Base(filepath.Dir(p)) != pycache {
			return err
		}
		rel, err := filepath.Rel(site, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if holds(p, made[rel], buf) {
			delete(made, rel)
			return nil
		}
		if first == "" {
			first = rel
		}
		return os.Remove(p)
	})
	if err == nil && (len(made) > 0 || made == nil) {
		err = os.Remove(filepath.Join(dir, "bytecode.json"))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return first, err
}

// holds reports whether a file has the content of a hash as in RECORD.
func holds(file, want string, buf []byte) bool {
	rec, err := parseRecorded(want, "")
	if err != nil || rec.algorithm == "" {
		return false
	}
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	h := rec.hasher()
	_, err = io.CopyBuffer(h, struct{ io.Reader }{f}, buf) // without its WriteTo, which has a buffer of its own
	return err == nil && slices.Equal(h.Sum(nil), rec.sum)
}

// repairEnv makes the named environment beside it, and puts it in its place if that differs; first is where.
func (s *Store) repairEnv(name string, want marker, dirs []string, py *Interpreter) (e *Env, first string, err error) {
	tmp, err := os.MkdirTemp(s.path("tmp"), "env-")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(tmp)
	if err := s.build(tmp, name, &want, dirs, py); err != nil {
		return nil, "", err
	}
	e = &Env{Dir: s.path(name), Warnings: want.Warnings}
	err = filepath.WalkDir(tmp, func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(tmp, p)
		if err == nil && !sameEntry(p, s.path(name, rel), entry) {
			first, err = filepath.ToSlash(rel), fs.SkipAll
		}
		return err
	})
	if err != nil || first == "" {
		return e, "", err
	}
	s.repairs.Add(1)
	return e, first, s.publishEnv(tmp, name)
}

// sameEntry reports whether b is what a is: a directory, a symlink to the same place, or a file with the same content.
func sameEntry(a, b string, e fs.DirEntry) bool {
	st, err := os.Lstat(b)
	if err != nil || st.Mode().Type() != e.Type() {
		return false
	}
	switch e.Type() {
	case fs.ModeDir:
		return true
	case fs.ModeSymlink:
		toA, errA := os.Readlink(a)
		toB, errB := os.Readlink(b)
		return errA == nil && errB == nil && toA == toB
	}
	equal, err := equalFiles(a, b)
	return err == nil && equal
}
