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
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/once"
)

// Selection is which files of a tree a directory holds; Name tells selections of one tree apart.
type Selection struct {
	Name string
	Want func(path string) bool
	// User, if it is not 0, is the only one who may write bytecode there, and nothing else.
	User int
}

// Dir returns a directory with the selected files of a loaded tree, made if it is not there. One whose files were changed
// since, by the version that ran in it, is moved aside and made anew. like is a tree of which there may be a directory
// already, from which this one takes the files that are the same, and their bytecode; it may be zero.
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

// Unchanged reports whether the directory that Dir has made of a loaded tree still looks as it was made.
func (l *Loader) Unchanged(t *merkle.Tree, sel Selection) bool {
	return unchanged(l.dirOf(t.Root(), sel.Name), t, sel)
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

// materialize writes the selection beside its place and renames it there. The directory that it makes is not synced as a
// whole: one that lost something in a crash of the machine does not look unchanged, and is made anew from the blobs.
func (l *Loader) materialize(ctx context.Context, t *merkle.Tree, sel Selection, like digest.Digest) error {
	parent, err := os.MkdirTemp(filepath.Join(l.dir, "tmp"), "tree")
	if err != nil {
		return err
	}
	defer os.RemoveAll(parent)
	m := &maker{ctx: ctx, cas: l.local, tree: t, sel: sel, dir: filepath.Join(parent, "tree")}
	if old := l.tree(like); old != nil {
		m.takeFrom(old, l.dirOf(like, sel.Name))
	}
	err = Heal(func() error {
		err := m.make()
		// A blob that the host has lost since the load, as one that another reader has set aside.
		if errors.Is(err, cache.ErrNotFound) {
			if _, _, err := l.load(ctx, t.Root()); err != nil {
				return err
			}
			err = m.make()
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := m.giveBytecode(); err != nil {
		return err
	}
	return os.Rename(m.dir, l.dirOf(t.Root(), sel.Name))
}
