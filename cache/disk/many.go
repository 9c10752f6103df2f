package disk

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// syncAllFrom is the number of blobs from which on the whole file system is synced twice, in place of each file and
// each directory: half the time for many blobs, but it waits for what other programs have written as well.
const syncAllFrom = 64

// PutMany implements cache.BatchPutter: all files are written, then synced, then named under one lock.
func (s *Store) PutMany(ctx context.Context, bs []cache.Blob) error {
	if err := s.putMany(ctx, bs); err != nil {
		return fmt.Errorf("put %d blobs: %w", len(bs), s.explain(err))
	}
	return nil
}

func (s *Store) putMany(ctx context.Context, bs []cache.Blob) error {
	todo, err := s.absent(ctx, bs)
	if err != nil || len(todo) == 0 {
		return err
	}
	var size int64
	for _, b := range todo {
		size += b.Digest.Size()
	}
	if err := s.checkRoom(size); err != nil {
		return err
	}
	syncNames, together := syncDirs, len(todo) >= syncAllFrom
	if together {
		syncNames = func(map[string]bool) error { return syncAll(s.session.lock) }
	}
	files, err := s.stageMany(ctx, todo, !together)
	defer func() {
		for _, f := range files {
			if err != nil && f.temp != "" {
				_ = os.Remove(f.temp)
			}
		}
	}()
	if err == nil && together {
		err = syncAll(s.session.lock)
	}
	if err == nil {
		err = s.publish(ctx, files, syncNames)
	}
	return err
}

// absent returns the blobs that are to be stored, each once, after making sure that the others are durable.
func (s *Store) absent(ctx context.Context, bs []cache.Blob) ([]cache.Blob, error) {
	ds := make([]digest.Digest, len(bs))
	data := make(map[digest.Digest][]byte, len(bs))
	for i, b := range bs {
		ds[i], data[b.Digest] = b.Digest, b.Data
	}
	missing, fresh, err := s.find(ctx, ds)
	if err != nil {
		return nil, err
	}
	dirs := make(map[string]bool)
	for _, n := range fresh {
		dirs[n.dir(s)] = true
	}
	todo := make([]cache.Blob, len(missing))
	for i, d := range missing {
		todo[i] = cache.Blob{Digest: d, Data: data[d]}
	}
	return todo, syncDirs(dirs)
}

// stageMany stages every blob. After an error those with a temporary file are still to be removed.
func (s *Store) stageMany(ctx context.Context, todo []cache.Blob, sync bool) ([]staged, error) {
	files := make([]staged, len(todo))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i, b := range todo {
		g.Go(func() error {
			if got := b.Digest.Function().FromBytes(b.Data); got != b.Digest {
				return fmt.Errorf("%w: want %s, got %s", digest.ErrMismatch, b.Digest, got)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			f, err := s.stage(name{blobs, b.Digest}, bytes.NewReader(b.Data), sync)
			if err != nil {
				return fmt.Errorf("blob %s: %w", b.Digest, err)
			}
			files[i] = f
			return nil
		})
	}
	return files, g.Wait()
}
