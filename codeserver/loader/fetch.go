package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// cache returns the remote cache, opening it on first use.
func (l *Loader) cache(ctx context.Context) (cache.CAS, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.remote != nil {
		return l.remote, nil
	}
	c, closer, err := l.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCache, err)
	}
	l.remote, l.closer = c, closer
	return c, nil
}

// counting is a CAS for reading: the host's store first, then the cache, whose blobs it keeps and counts.
type counting struct {
	loader       *Loader
	blobs, bytes atomic.Int64
	held         map[digest.Digest][]byte // what a holding has read from the cache, for fetchAll to store; nil without one
}

// Get implements cache.CAS.
func (c *counting) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	rc, err := c.loader.local.Get(ctx, d)
	if !isLost(err) {
		return rc, err
	}
	if err := c.fetch(ctx, d); err != nil {
		return nil, err
	}
	return c.loader.local.Get(ctx, d)
}

// isLost reports whether the host has no copy of a blob that can be used: a damaged one is set aside when it is met.
func isLost(err error) bool {
	return errors.Is(err, cache.ErrNotFound) || errors.Is(err, digest.ErrMismatch)
}

// holding is a counting from which a tree's Directories are read, one after the other. Those from the cache that are small are held
// until fetchAll stores them with the files, with one sync for all.
type holding struct{ *counting }

// Get implements cache.CAS.
func (h holding) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if d.Size() > smallBlob {
		return h.counting.Get(ctx, d)
	}
	data, there := h.held[d]
	if !there {
		var err error
		data, err = cache.ReadBlob(ctx, h.loader.local, d, smallBlob)
		if isLost(err) {
			data, err = h.hold(ctx, d)
		}
		if err != nil {
			return nil, err
		}
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// hold reads a blob from the cache.
func (h holding) hold(ctx context.Context, d digest.Digest) ([]byte, error) {
	remote, err := h.loader.cache(ctx)
	if err != nil {
		return nil, err
	}
	data, err := h.read(ctx, remote, d)
	if err != nil {
		return nil, err
	}
	if got := d.Function().FromBytes(data); got != d {
		return nil, remoteError(ctx, d, fmt.Errorf("%w: want %s, got %s", digest.ErrMismatch, d, got))
	}
	h.held[d] = data
	return data, nil
}

// FindMissing implements cache.CAS.
func (c *counting) FindMissing(context.Context, []digest.Digest) ([]digest.Digest, error) {
	return nil, errors.ErrUnsupported
}

// Put implements cache.CAS.
func (c *counting) Put(context.Context, digest.Digest, io.Reader) error { return errors.ErrUnsupported }

// fetch copies one blob from the cache to the host.
func (c *counting) fetch(ctx context.Context, d digest.Digest) error {
	remote, err := c.loader.cache(ctx)
	if err != nil {
		return err
	}
	rc, err := remote.Get(ctx, d)
	if err != nil {
		return remoteError(ctx, d, err)
	}
	defer rc.Close()
	from := &remoteReader{ctx: ctx, d: d, r: rc}
	if err := c.loader.local.Put(ctx, d, from); err != nil {
		// What the cache sent is the cause, also where the store found it out.
		switch {
		case from.err != nil:
			return from.err
		case errors.Is(err, digest.ErrMismatch):
			return remoteError(ctx, d, err)
		}
		return fmt.Errorf("keep blob %s: %w", d, err)
	}
	c.count(d)
	return nil
}

func (c *counting) count(d digest.Digest) {
	c.blobs.Add(1)
	c.bytes.Add(d.Size())
	c.loader.fetchedBlobs.Add(1)
	c.loader.fetchedBytes.Add(d.Size())
}

// read reads a small blob from the cache.
func (c *counting) read(ctx context.Context, remote cache.CAS, d digest.Digest) ([]byte, error) {
	data, err := cache.ReadBlob(ctx, remote, d, smallBlob)
	if err != nil {
		return nil, remoteError(ctx, d, err)
	}
	c.count(d)
	return data, nil
}

// remoteReader remembers that it was the cache that failed, and not the host's disk.
type remoteReader struct {
	ctx context.Context //nolint:containedctx // that of the call that reads
	d   digest.Digest
	r   io.Reader
	err error
}

func (r *remoteReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = remoteError(r.ctx, r.d, err)
		err = r.err
	}
	return n, err
}

// remoteError tells a blob that is not there from a cache that is not there, or that has something else in its place.
func remoteError(ctx context.Context, d digest.Digest, err error) error {
	if errors.Is(err, cache.ErrNotFound) || errors.Is(err, ErrCache) || ctx.Err() != nil {
		return fmt.Errorf("fetch blob %s: %w", d, err)
	}
	return fmt.Errorf("%w: fetch blob %s: %w", ErrCache, d, err)
}

// Blobs up to smallBlob are fetched into memory, batchBytes of them at most, and stored with one sync.
const (
	smallBlob  = 256 << 10
	batchBytes = 16 << 20
)

// fetchAll copies blobs from the cache to the host, in parallel.
func (c *counting) fetchAll(ctx context.Context, ds []digest.Digest) error {
	if len(ds) == 0 {
		return nil
	}
	remote, err := c.loader.cache(ctx)
	if err != nil {
		return err
	}
	var small []digest.Digest
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8 * runtime.GOMAXPROCS(0))
	for _, d := range ds {
		if d.Size() <= smallBlob {
			small = append(small, d)
			continue
		}
		g.Go(func() error { return c.fetch(gctx, d) })
	}
	for len(small) > 0 {
		n, size := 0, int64(0)
		for n < len(small) && size+small[n].Size() <= batchBytes {
			size += small[n].Size()
			n++
		}
		batch := small[:n]
		small = small[n:]
		if err := c.fetchBatch(gctx, remote, batch); err != nil {
			cancel() // large ones are not waited for
			// Which of the two ended the other is told by the one that is not a cancellation.
			if werr := g.Wait(); werr != nil && errors.Is(err, context.Canceled) {
				return werr
			}
			return err
		}
	}
	return g.Wait()
}

func (c *counting) fetchBatch(ctx context.Context, remote cache.CAS, ds []digest.Digest) error {
	blobs := make([]cache.Blob, len(ds))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8 * runtime.GOMAXPROCS(0))
	for i, d := range ds {
		g.Go(func() error {
			data, there := c.held[d]
			if !there {
				var err error
				if data, err = c.read(gctx, remote, d); err != nil {
					return err
				}
			}
			blobs[i] = cache.Blob{Digest: d, Data: data}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.loader.local.PutMany(ctx, blobs)
}
