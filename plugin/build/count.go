package build

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Counter is a CAS that counts what was written through it and was not there before: the bytes that a build shipped.
type Counter struct {
	cache.CAS
	blobs, bytes atomic.Int64
}

// Count returns a Counter over c.
func Count(c cache.CAS) *Counter { return &Counter{CAS: c} }

// Put implements cache.CAS.
func (c *Counter) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	missing, err := c.FindMissing(ctx, []digest.Digest{d})
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	if err := c.CAS.Put(ctx, d, r); err != nil {
		return err
	}
	c.blobs.Add(1)
	c.bytes.Add(d.Size())
	return nil
}

// PutMany implements cache.BatchPutter.
func (c *Counter) PutMany(ctx context.Context, blobs []cache.Blob) error {
	ds, data := make([]digest.Digest, len(blobs)), map[digest.Digest][]byte{}
	for i, b := range blobs {
		ds[i], data[b.Digest] = b.Digest, b.Data
	}
	missing, err := c.FindMissing(ctx, ds)
	if err != nil || len(missing) == 0 {
		return err
	}
	batch := make([]cache.Blob, len(missing))
	for i, d := range missing {
		batch[i] = cache.Blob{Digest: d, Data: data[d]}
	}
	if err := cache.PutAll(ctx, c.CAS, batch); err != nil {
		return err
	}
	for _, d := range missing {
		c.blobs.Add(1)
		c.bytes.Add(d.Size())
	}
	return nil
}

// Shipped returns the number of blobs and bytes written so far.
func (c *Counter) Shipped() (blobs, bytes int64) { return c.blobs.Load(), c.bytes.Load() }
