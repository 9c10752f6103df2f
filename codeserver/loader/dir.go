package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// Dir returns a directory with the files of a loaded tree for which want is true, made if it is not there. name tells
// selections of one tree apart. The files are the version's own: a program may write beside them, and even over them.
func (l *Loader) Dir(ctx context.Context, t *merkle.Tree, name string, want func(path string) bool) (string, error) {
	l.collect.RLock()
	defer l.collect.RUnlock()
	dir := l.dirOf(t.Root(), name)
	_, err, _ := l.flight.Do("dir "+dir, func() (any, error) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, l.materialize(ctx, t, want, dir)
	})
	if err != nil {
		return "", fmt.Errorf("write tree %s: %w", t.Root(), err)
	}
	return dir, nil
}

func (l *Loader) dirOf(root digest.Digest, name string) string {
	return filepath.Join(l.dir, "trees", root.Hash()+"-"+name)
}

// materialize writes the selection beside its place and renames it there. A blob that turns out corrupt on the host is
// set aside by the store, and fetched again once.
func (l *Loader) materialize(ctx context.Context, t *merkle.Tree, want func(string) bool, dir string) error {
	selection, err := selectTree(t, want)
	if err != nil {
		return err
	}
	parent, err := os.MkdirTemp(filepath.Join(l.dir, "tmp"), "tree")
	if err != nil {
		return err
	}
	defer os.RemoveAll(parent)
	tmp := filepath.Join(parent, "tree")
	_, err = merkle.Materialize(ctx, l.local, selection, tmp)
	if errors.Is(err, digest.ErrMismatch) || errors.Is(err, cache.ErrNotFound) {
		if _, _, err = l.load(ctx, t.Root()); err != nil {
			return err
		}
		_, err = merkle.Materialize(ctx, l.local, selection, tmp)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func selectTree(t *merkle.Tree, want func(string) bool) (*merkle.Tree, error) {
	var b merkle.Builder
	for path, d := range t.Files() {
		if want(path) {
			if err := b.File(path, d); err != nil {
				return nil, err
			}
		}
	}
	for path, target := range t.Symlinks() {
		if want(path) {
			if err := b.Symlink(path, target); err != nil {
				return nil, err
			}
		}
	}
	return b.Build()
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Keep forgets every tree but those with the given roots: directories, pins, and blobs that no other tree needs.
func (l *Loader) Keep(ctx context.Context, roots []digest.Digest) error {
	l.collect.Lock()
	defer l.collect.Unlock()
	kept := map[string]bool{}
	for _, r := range roots {
		kept[r.Hash()] = true
	}
	entries, err := os.ReadDir(filepath.Join(l.dir, "trees"))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		hash, _, _ := strings.Cut(e.Name(), "-")
		if !kept[hash] {
			errs = append(errs, os.RemoveAll(filepath.Join(l.dir, "trees", e.Name())))
		}
	}
	pins, err := l.local.Pins()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	dropped := false
	for _, pin := range pins {
		if hash, ok := strings.CutPrefix(pin, "tree-"); ok && !kept[hash] {
			dropped = true
			errs = append(errs, l.local.Unpin(ctx, pin))
		}
	}
	if dropped {
		_, err := l.local.GC(ctx, 0)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
