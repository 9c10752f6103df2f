package merkle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
)

// Stats says what Materialize wrote.
type Stats struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// ModTime is the modification time of every file that Materialize writes. It is the same everywhere, so that Python's
// bytecode, which names the source's time and size, can be shared between copies of the same file.
var ModTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Materialize writes the tree into dir, which must not exist, every byte verified. When it returns nil the whole tree
// is on stable storage, so that the caller can rename dir to where it is looked for; after an error dir is gone.
//
// Directories are made first, then files with O_EXCL, then symlinks, so that nothing is ever written through a symlink.
func Materialize(ctx context.Context, cas cache.CAS, t *Tree, dir string) (Stats, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return Stats{}, err
	}
	st, err := materialize(ctx, cas, t, dir)
	if err != nil {
		return Stats{}, errors.Join(err, os.RemoveAll(dir))
	}
	return st, nil
}

func materialize(ctx context.Context, cas cache.CAS, t *Tree, dir string) (Stats, error) {
	var st Stats
	made := map[string]bool{"": true}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4 * runtime.GOMAXPROCS(0))
	var mkErr error
	for path, d := range t.Files() {
		if mkErr = mkdirs(dir, path, made); mkErr != nil {
			break
		}
		st.Files++
		st.Bytes += d.Size()
		g.Go(func() error { return WriteFile(gctx, cas, d, filepath.Join(dir, path)) })
	}
	if err := errors.Join(mkErr, g.Wait()); err != nil {
		return st, err
	}
	for path, target := range t.Symlinks() {
		if err := mkdirs(dir, path, made); err != nil {
			return st, err
		}
		if err := os.Symlink(target, filepath.Join(dir, path)); err != nil {
			return st, err
		}
	}
	return st, durable.SyncFS(dir)
}

// mkdirs makes the directories above path, those not made yet.
func mkdirs(dir, path string, made map[string]bool) error {
	i := strings.LastIndexByte(path, '/')
	if i < 0 || made[path[:i]] {
		return nil
	}
	if err := mkdirs(dir, path[:i], made); err != nil {
		return err
	}
	made[path[:i]] = true
	return os.Mkdir(filepath.Join(dir, path[:i]), 0o755)
}

// WriteFile writes one file as Materialize does, verified, with its mode and time. It is not synced.
func WriteFile(ctx context.Context, cas cache.CAS, d digest.Digest, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rc, err := cas.Get(ctx, d)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer rc.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o555)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, rc)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chtimes(path, ModTime, ModTime)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
