package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/once"
)

// Selection is which files of a tree a directory holds; Name tells selections of one tree apart.
type Selection struct {
	Name string
	Want func(path string) bool
}

// Dir returns a directory with the selected files of a loaded tree, made if it is not there. One whose files were changed
// since, by the version that ran in it, is moved aside and made anew. like is a tree of which there may be a directory
// already, whose bytecode is used again; it may be zero.
func (l *Loader) Dir(ctx context.Context, t *merkle.Tree, sel Selection, like digest.Digest) (string, error) {
	l.collect.RLock()
	defer l.collect.RUnlock()
	dir := l.dirOf(t.Root(), sel.Name)
	_, err := once.Do(ctx, &l.flight, "dir "+dir, func() (struct{}, error) {
		_, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return struct{}{}, err
		case unchanged(dir, t, sel):
			return struct{}{}, nil
		default:
			if err := l.moveAside(dir); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, l.materialize(ctx, t, sel, like)
	})
	if err != nil {
		return "", fmt.Errorf("write tree %s: %w", t.Root(), err)
	}
	return dir, nil
}

// unchanged reports whether the selected files still look as they were written. It compares times and sizes, which tells
// a program that changes its own files; one that hides it runs as the same user, and could do worse.
func unchanged(dir string, t *merkle.Tree, sel Selection) bool {
	for p, d := range t.Files() {
		if !sel.Want(p) {
			continue
		}
		st, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(p)))
		if err != nil || !st.Mode().IsRegular() || st.Size() != d.Size() || !st.ModTime().Equal(merkle.ModTime) {
			return false
		}
	}
	return true
}

// moveAside keeps a directory that a version has written over: a digest names what runs, but a version that still runs
// there goes on in it, and what it wrote is not ours to lose. The last such copy is kept, as long as the tree is.
func (l *Loader) moveAside(dir string) error {
	aside := dir + "-changed"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	return os.Rename(dir, aside)
}

func (l *Loader) dirOf(root digest.Digest, name string) string {
	return filepath.Join(l.dir, "trees", root.Hash()+"-"+name)
}

// materialize writes the selection beside its place and renames it there.
func (l *Loader) materialize(ctx context.Context, t *merkle.Tree, sel Selection, like digest.Digest) error {
	selected, err := selectTree(t, sel.Want)
	if err != nil {
		return err
	}
	parent, err := os.MkdirTemp(filepath.Join(l.dir, "tmp"), "tree")
	if err != nil {
		return err
	}
	defer os.RemoveAll(parent)
	tmp := filepath.Join(parent, "tree")
	err = Heal(func() error {
		_, err := merkle.Materialize(ctx, l.local, selected, tmp)
		// A blob that the host has lost since the load, as one that another reader has set aside.
		if errors.Is(err, cache.ErrNotFound) {
			if _, _, err := l.load(ctx, t.Root()); err != nil {
				return err
			}
			_, err = merkle.Materialize(ctx, l.local, selected, tmp)
		}
		return err
	})
	if err != nil {
		return err
	}
	if !like.IsZero() {
		l.mu.Lock()
		old := l.trees[like]
		l.mu.Unlock()
		if old != nil {
			reuseBytecode(old, l.dirOf(like, sel.Name), selected, tmp)
		}
	}
	dir := l.dirOf(t.Root(), sel.Name)
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
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
