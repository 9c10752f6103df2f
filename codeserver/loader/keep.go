package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
)

// ErrBusy says that trees are being loaded.
var ErrBusy = errors.New("trees are being loaded")

// Keep forgets every tree but those with the given roots: directories, pins, and blobs that no other tree needs. While
// trees are being loaded it is ErrBusy: to wait would have every later load wait too. The directories are out of sight
// then; to delete them, which takes its time, is left to the function that is returned, and no load waits for that.
func (l *Loader) Keep(ctx context.Context, roots []digest.Digest) (remove func() error, err error) {
	kept := map[string]bool{}
	for _, r := range roots {
		kept[r.Hash()] = true
	}
	if !l.collect.TryLock() {
		return nil, ErrBusy
	}
	defer l.collect.Unlock()
	l.forget(kept)
	trash, err := os.MkdirTemp(filepath.Join(l.dir, "tmp"), "trash")
	if err != nil {
		return nil, err
	}
	remove = func() error { return os.RemoveAll(trash) }
	if err := l.drop(ctx, kept, trash); err != nil {
		return remove, err
	}
	return remove, l.sweep(ctx)
}

// sweep deletes what a killed process, or a load that failed, left in the store without a pin.
func (l *Loader) sweep(ctx context.Context) error {
	l.mu.Lock()
	swept := l.swept
	l.mu.Unlock()
	if swept {
		return nil
	}
	_, err := l.local.GC(ctx, 0)
	l.setSwept(err == nil)
	return err
}

func (l *Loader) setSwept(swept bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.swept = swept
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
		for d := range t.Blobs() {
			l.dirs[d] = t
		}
	}
}

// drop moves directories that are not kept to trash, whole, so that none is ever found in part, and deletes the blobs that
// only their trees need.
func (l *Loader) drop(ctx context.Context, kept map[string]bool, trash string) error {
	entries, err := os.ReadDir(filepath.Join(l.dir, "trees"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		hash, _, _ := strings.Cut(e.Name(), "-")
		if !kept[hash] {
			if err := os.Rename(filepath.Join(l.dir, "trees", e.Name()), filepath.Join(trash, e.Name())); err != nil {
				return fmt.Errorf("delete tree: %w", err)
			}
		}
	}
	pins, err := l.local.Pins()
	if err != nil {
		return err
	}
	pins = slices.DeleteFunc(pins, func(pin string) bool {
		hash, ok := strings.CutPrefix(pin, "tree-")
		return !ok || kept[hash]
	})
	_, err = l.local.Release(ctx, pins)
	return err
}
