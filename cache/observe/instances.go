package observe

import (
	"context"
	"errors"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/full"
	"github.com/pexpress/pexpress/cache/server"
)

// Instances returns base with what is done to its instances counted.
func (v *Observer) Instances(base server.Instances) server.Instances { return &instances{v, base} }

type instances struct {
	v    *Observer
	base server.Instances
}

// Instance implements server.Instances.
func (i *instances) Instance(ctx context.Context, name string, want server.Access) (server.Instance, error) {
	in, err := i.base.Instance(ctx, name, want)
	family := i.v.o.Family(name)
	if c := callOf(ctx); c != nil {
		c.entered(ctx, family) // who was refused, and where, is worth knowing, too
	}
	if err != nil {
		return in, err
	}
	t := i.v.tallies.of(family)
	in.CAS = &countedCAS{full.Of(in.CAS), i.v, t}
	if in.ActionCache != nil {
		in.ActionCache = &countedActions{in.ActionCache, i.v, t}
	}
	return in, nil
}

// countedActions is an ActionCache whose hits and misses are counted.
type countedActions struct {
	cache.ActionCache
	v *Observer
	t *tally
}

// GetActionResult implements cache.ActionCache.
func (a *countedActions) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	ar, err := a.ActionCache.GetActionResult(ctx, action)
	name := requestMetadata(ctx).GetActionMnemonic()
	if c := callOf(ctx); c != nil && name != "" {
		name = cleanMnemonic(name)
		c.mnemonic.Store(&name)
	}
	switch m := a.t.mnemonic(name); {
	case err == nil:
		a.t.hits.Add(1)
		m.hits.Add(1)
		a.v.total.hits.Add(1)
	case errors.Is(err, cache.ErrNotFound):
		a.t.misses.Add(1)
		m.misses.Add(1)
		a.v.total.misses.Add(1)
	}
	return ar, err
}

// UpdateActionResult implements cache.ActionCache.
func (a *countedActions) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	err := a.ActionCache.UpdateActionResult(ctx, action, result)
	if err == nil {
		a.t.updates.Add(1)
	}
	return err
}

// countedCAS is a CAS whose reads and writes are counted.
type countedCAS struct {
	full.CAS
	v *Observer
	t *tally
}

// Get implements cache.CAS.
func (c *countedCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	rc, err := c.CAS.Get(ctx, d)
	return c.reading(ctx, rc, d.Size(), err)
}

// GetFrom implements cache.RangeGetter.
func (c *countedCAS) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := c.CAS.GetFrom(ctx, d, offset)
	return c.reading(ctx, rc, d.Size()-offset, err)
}

// GetZstd implements cache.ZstdGetter.
func (c *countedCAS) GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := c.CAS.GetZstd(ctx, d, offset)
	return c.reading(ctx, rc, d.Size()-offset, err)
}

func (c *countedCAS) reading(ctx context.Context, rc io.ReadCloser, size int64, err error) (io.ReadCloser, error) {
	if err != nil {
		if errors.Is(err, cache.ErrNotFound) {
			c.t.gone.Add(1)
		}
		return nil, err
	}
	c.t.reads.Add(1)
	c.v.moving.Add(size)
	return &countedReader{rc, c, callOf(ctx), size}, nil
}

// GetMany implements cache.BatchGetter.
func (c *countedCAS) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	var n, reads, gone int64
	err := c.CAS.GetMany(ctx, ds, func(i int, data []byte, err error) {
		switch {
		case err == nil:
			reads++
			n += int64(len(data))
		case errors.Is(err, cache.ErrNotFound):
			gone++
		}
		each(i, data, err)
	})
	c.t.reads.Add(reads)
	c.t.gone.Add(gone)
	c.out(callOf(ctx), n)
	return err
}

// Put implements cache.CAS.
func (c *countedCAS) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	c.v.moving.Add(d.Size())
	defer c.v.moving.Add(-d.Size())
	err := c.CAS.Put(ctx, d, r)
	if err == nil {
		c.in(callOf(ctx), d.Size())
	}
	return err
}

// PutMany implements cache.BatchPutter.
func (c *countedCAS) PutMany(ctx context.Context, blobs []cache.Blob) error {
	var n int64
	for _, b := range blobs {
		n += int64(len(b.Data))
	}
	c.v.moving.Add(n)
	defer c.v.moving.Add(-n)
	err := c.CAS.PutMany(ctx, blobs)
	if err == nil {
		c.in(callOf(ctx), n)
	}
	return err
}

// FindMissing implements cache.CAS.
func (c *countedCAS) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	missing, err := c.CAS.FindMissing(ctx, ds)
	if err == nil {
		c.t.absent.Add(int64(len(missing)))
		c.t.present.Add(int64(len(ds) - len(missing)))
	}
	return missing, err
}

func (c *countedCAS) out(call *call, n int64) {
	c.t.read.Add(n)
	c.v.total.read.Add(n)
	if call != nil {
		call.bytes.Add(n)
	}
}

func (c *countedCAS) in(call *call, n int64) {
	c.t.written.Add(n)
	c.v.total.written.Add(n)
	if call != nil {
		call.bytes.Add(n)
	}
}

// countedReader counts the bytes of one blob as they leave.
type countedReader struct {
	io.ReadCloser
	c    *countedCAS
	call *call
	size int64
}

// Read implements io.Reader.
func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.c.out(r.call, int64(n))
	return n, err
}

// Close implements io.Closer.
func (r *countedReader) Close() error {
	r.c.v.moving.Add(-r.size)
	r.size = 0
	return r.ReadCloser.Close()
}
