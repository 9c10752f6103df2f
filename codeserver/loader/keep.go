package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
)

// ErrBusy says that trees are being loaded.
var ErrBusy = errors.New("trees are being loaded")

// Keep forgets every tree but those with the given roots: directories, pins, and blobs that no other tree needs. While
// trees are being loaded it is ErrBusy: to wait would have every later load wait too.
func (l *Loader) Keep(ctx context.Context, roots []digest.Digest) error {
	kept := map[string]bool{}
	for _, r := range roots {
		kept[r.Hash()] = true
	}
	if !l.collect.TryLock() {
		return ErrBusy
	}
	defer l.collect.Unlock()
	l.forget(kept)
	trash, err := os.MkdirTemp(filepath.Join(l.dir, "tmp"), "trash")
	if err != nil {
		return err
	}
	dropped, err := l.drop(ctx, kept, trash)
	if err == nil && (dropped || !l.swept) {
		_, err = l.local.GC(ctx, 0)
		l.swept = err == nil
	}
	return errors.Join(err, os.RemoveAll(trash))
}

// forget drops what is in memory of trees that are not kept.
func (l *Loader) forget(kept map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.dirs)
	for root, t := range l.trees {
		if !kept[root.Hash()] {
			delete(l.trees, root)
			continue
		}
		for d, data := range t.Blobs() {
			l.dirs[d] = data
		}
	}
}

// drop moves directories that are not kept to trash, whole, so that none is ever found in part, and unpins their blobs.
func (l *Loader) drop(ctx context.Context, kept map[string]bool, trash string) (dropped bool, err error) {
	entries, err := os.ReadDir(filepath.Join(l.dir, "trees"))
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		hash, _, _ := strings.Cut(e.Name(), "-")
		if !kept[hash] {
			if err := os.Rename(filepath.Join(l.dir, "trees", e.Name()), filepath.Join(trash, e.Name())); err != nil {
				return false, fmt.Errorf("delete tree: %w", err)
			}
		}
	}
	pins, err := l.local.Pins()
	if err != nil {
		return false, err
	}
	for _, pin := range pins {
		if hash, ok := strings.CutPrefix(pin, "tree-"); ok && !kept[hash] {
			dropped = true
			if err := l.local.Unpin(ctx, pin); err != nil {
				return true, err
			}
		}
	}
	return dropped, nil
}
