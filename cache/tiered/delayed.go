package tiered

import (
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/full"
)

// Delayed is one namespace with write-back.
type Delayed struct {
	*Cache
	w       *WriteBack
	name    string
	journal *full.Lazy
}

// Get implements cache.CAS.
func (c *Delayed) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return c.GetFrom(ctx, d, 0)
}

// GetFrom implements cache.RangeGetter.
func (c *Delayed) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := c.journal.GetFrom(ctx, d, offset)
	if !errors.Is(err, cache.ErrNotFound) {
		return rc, err
	}
	if rc, err = c.Cache.GetFrom(ctx, d, offset); errors.Is(err, cache.ErrNotFound) {
		err = errors.Join(err, c.w.lossOf(key{c.name, d}))
	}
	return rc, err
}

// GetZstd implements cache.ZstdGetter.
func (c *Delayed) GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := c.journal.GetZstd(ctx, d, offset)
	if errors.Is(err, cache.ErrNotFound) {
		return c.Cache.GetZstd(ctx, d, offset)
	}
	return rc, err
}

// GetMany implements cache.BatchGetter.
func (c *Delayed) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	missed := func(err error) bool { return errors.Is(err, cache.ErrNotFound) }
	return full.Either(c.journal.GetMany, c.Cache.GetMany, missed)(ctx, ds, each)
}

// FindMissing implements cache.CAS.
func (c *Delayed) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	// First the journal: what leaves it in between is in the back by then.
	left, err := c.journal.FindMissing(ctx, ds)
	if err != nil || len(left) == 0 {
		return left, err
	}
	return c.Cache.FindMissing(ctx, left)
}

// Put implements cache.CAS.
func (c *Delayed) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if d.Size() <= small && !d.IsZero() {
		b, err := io.ReadAll(digest.NewReader(io.NopCloser(r), d))
		if err != nil {
			return fmt.Errorf("put blob %s: %w", d, err)
		}
		return c.PutMany(ctx, []cache.Blob{{Digest: d, Data: b}})
	}
	if c.w.journal.Stats().Bytes+d.Size() > c.w.journal.Stats().MaxBytes {
		return c.Cache.Put(ctx, d, r) // r can be read only once, so that it fits is asked before
	}
	if err := c.journal.Put(ctx, d, r); err != nil {
		return err
	}
	c.w.add(batch{blobs: []key{{c.name, d}}})
	return nil
}

// PutMany implements cache.BatchPutter.
func (c *Delayed) PutMany(ctx context.Context, blobs []cache.Blob) error {
	err := c.journal.PutMany(ctx, blobs)
	if errors.Is(err, cache.ErrFull) {
		return c.Cache.PutMany(ctx, blobs)
	}
	if err != nil {
		return err
	}
	var b batch
	for _, blob := range blobs {
		b.blobs = append(b.blobs, key{c.name, blob.Digest})
	}
	c.w.add(b)
	return nil
}

// GetActionResult implements cache.ActionCache.
func (c *Delayed) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	ar, err := c.journal.GetActionResult(ctx, action)
	if errors.Is(err, cache.ErrNotFound) {
		return c.Cache.GetActionResult(ctx, action)
	}
	return ar, err
}

// UpdateActionResult implements cache.ActionCache. A full journal is an error here: to pass it by would show other nodes
// a result before its blobs.
func (c *Delayed) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	k := key{c.name, action}
	c.w.changes.RLock()
	err := c.journal.UpdateActionResult(ctx, action, result)
	if err == nil {
		c.w.count(k, 1)
	}
	c.w.changes.RUnlock()
	if err != nil {
		return err
	}
	c.w.add(batch{actions: []key{k}})
	return nil
}
