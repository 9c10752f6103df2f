package compose

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A staging is a directory in which a project lies as it does in its checkout. Package project reads a directory, and a
// sandbox has symlinks in it, or only a list of files.
type staging struct {
	dir    string
	origin map[string]string // where a file of the staging really is
}

// projectDir is what the top of a staging is called: a project that says no name has its directory's.
const projectDir = "project"

func newStaging() (*staging, error) {
	tmp, err := os.MkdirTemp("", "pexpress-compose")
	if err != nil {
		return nil, err
	}
	s := &staging{dir: filepath.Join(tmp, projectDir), origin: map[string]string{}}
	// What stands for the top of a repository ends the search for .gitignore files there.
	if err := os.MkdirAll(filepath.Join(s.dir, ".git"), 0o700); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func (s *staging) remove() error { return os.RemoveAll(filepath.Dir(s.dir)) }

// readable is the largest file that is copied: package project reads what packaging tools write, and of others the name
// alone.
const readable = 16 << 20

// file puts a file at a slash-separated path, read through symlinks.
func (s *staging) file(name, path string) error {
	to, err := s.place(name)
	if err != nil {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a file", ErrInput, path)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: %s is given twice", ErrInput, name)
	}
	if err != nil {
		return err
	}
	if info.Size() <= readable {
		_, err = io.Copy(out, in)
	}
	s.origin[to] = path
	return errors.Join(err, out.Close())
}

// link puts a symlink.
func (s *staging) link(name, target string) error {
	to, err := s.place(name)
	if err != nil {
		return err
	}
	err = os.Symlink(target, to)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: %s is given twice", ErrInput, name)
	}
	return err
}

// place makes the directories above a path of the staging, none of them through a symlink: that could lead anywhere.
func (s *staging) place(name string) (string, error) {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "", fmt.Errorf("%w: %q is not a relative path inside the project", ErrInput, name)
	}
	to := filepath.Join(s.dir, filepath.FromSlash(name))
	for dir := filepath.Dir(to); len(dir) > len(s.dir); dir = filepath.Dir(dir) {
		if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
			return "", fmt.Errorf("%w: %s stands below %s, which is no directory", ErrInput, name, dir[len(s.dir)+1:])
		}
	}
	return to, os.MkdirAll(filepath.Dir(to), 0o700)
}

// tree puts all that lies below a directory.
func (s *staging) tree(dir string) error {
	l := &listing{follow: true, links: map[string]string{}}
	if err := l.walk(dir, "", 0); err != nil {
		return err
	}
	for i, name := range l.names {
		if err := s.file(name, l.paths[i]); err != nil {
			return err
		}
	}
	for name, target := range l.links {
		if err := s.link(name, target); err != nil {
			return err
		}
	}
	return nil
}

// real returns where a file of a project is, staged or not.
func (s *staging) real(path string) string {
	if s == nil {
		return path
	}
	if origin, ok := s.origin[path]; ok {
		return origin
	}
	return path
}
