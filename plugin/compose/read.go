package compose

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// ReadTree returns the canonical tree of a directory: each file is executable, an empty directory is none. With follow,
// absolute symlinks, which no canonical tree has, are read through: sandboxes stage files so.
func ReadTree(ctx context.Context, dir string, follow bool) (*merkle.Tree, error) {
	return newStore().readTree(ctx, dir, follow)
}

// read takes in a directory that a build tool has staged.
func (s *store) read(ctx context.Context, dir string) (*merkle.Tree, error) {
	t, err := s.readTree(ctx, dir, true)
	if err != nil {
		return nil, err
	}
	return t, t.Put(ctx, s)
}

func (s *store) readTree(ctx context.Context, dir string, follow bool) (*merkle.Tree, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%w: %s is not a directory", ErrInput, dir)
	}
	l := &listing{follow: follow, links: map[string]string{}}
	if err := l.walk(dir, "", 0); err != nil {
		return nil, err
	}
	digests, err := s.files(ctx, l.paths)
	if err != nil {
		return nil, err
	}
	t, err := l.tree(digests)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return t, nil
}

// listing is what lies below a directory.
type listing struct {
	follow bool
	names  []string // of files, slash-separated
	paths  []string // where they are
	links  map[string]string
}

func (l *listing) walk(dir, prefix string, depth int) error {
	if depth > 200 {
		return fmt.Errorf("%w: %s is more than 200 directories deep", ErrInput, dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path, mode, link, err := l.resolve(filepath.Join(dir, e.Name()), e.Type())
		if err != nil {
			return err
		}
		name := prefix + e.Name()
		switch {
		case link != "":
			l.links[name] = link
		case mode.IsDir():
			if err := l.walk(path, name+"/", depth+1); err != nil {
				return err
			}
		case mode.IsRegular():
			l.names, l.paths = append(l.names, name), append(l.paths, path)
		default:
			return fmt.Errorf("%w: %s is neither file, directory nor symlink", ErrInput, path)
		}
	}
	return nil
}

// resolve goes through the absolute symlinks that a sandbox has put in an entry's place, and no further: a relative one is
// the tree's own.
func (l *listing) resolve(path string, mode fs.FileMode) (string, fs.FileMode, string, error) {
	for range 40 {
		if mode&fs.ModeSymlink == 0 {
			return path, mode, "", nil
		}
		target, err := os.Readlink(path)
		if err != nil {
			return "", 0, "", err
		}
		if !filepath.IsAbs(target) || !l.follow {
			return path, mode, target, nil
		}
		info, err := os.Lstat(target)
		if err != nil {
			return "", 0, "", fmt.Errorf("%s leads nowhere: %w", path, err)
		}
		path, mode = target, info.Mode().Type()
	}
	return "", 0, "", fmt.Errorf("%w: %s is a symlink in a circle", ErrInput, path)
}

func (l *listing) tree(digests []digest.Digest) (*merkle.Tree, error) {
	var b merkle.Builder
	var errs []error
	for i, name := range l.names {
		errs = append(errs, b.File(name, digests[i]))
	}
	for name, target := range l.links {
		errs = append(errs, b.Symlink(name, target))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	return b.Build()
}
