package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
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

// holding is a counting from which a tree's Directories are read, a level at once where the cache can. Those from the cache that are
// small are held until fetchAll stores them with the files, with one sync for all.
type holding struct{ *counting }

// Get implements cache.CAS.
func (h holding) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if d.Size() > smallBlob {
		return h.counting.Get(ctx, d)
	}
	var data []byte
	var failed error
	err := h.GetMany(ctx, []digest.Digest{d}, func(_ int, b []byte, err error) { data, failed = b, err })
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// GetMany implements cache.BatchGetter.
func (h holding) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	var lacking []digest.Digest
	var places []int
	for i, d := range ds {
		data, there := h.held[d]
		var err error
		switch {
		case there:
		case d.Size() > smallBlob:
			data, err = cache.ReadBlob(ctx, h, d, d.Size())
		default:
			data, err = cache.ReadBlob(ctx, h.loader.local, d, smallBlob)
			if isLost(err) {
				lacking, places = append(lacking, d), append(places, i)
				continue
			}
		}
		each(i, data, err)
	}
	if len(lacking) == 0 {
		return nil
	}
	return h.readAll(ctx, lacking, func(i int, data []byte, err error) {
		d := lacking[i]
		if err == nil && d.Function().FromBytes(data) != d { // what is stored is checked then, and this is read before
			err = remoteError(ctx, d, fmt.Errorf("%w: got %s", digest.ErrMismatch, d.Function().FromBytes(data)))
		}
		if err == nil {
			h.held[d] = data
		}
		each(places[i], data, err)
	})
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

// readAll reads small blobs from the cache, at once where it can, and else several at a time. It calls each as a cache.BatchGetter
// does, and what each is given is its own.
func (c *counting) readAll(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	remote, err := c.loader.cache(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	take := func(i int, data []byte, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			each(i, nil, remoteError(ctx, ds[i], err))
			return
		}
		c.count(ds[i])
		each(i, data, nil)
	}
	if many, ok := remote.(cache.BatchGetter); ok {
		lent := func(i int, data []byte, err error) { take(i, bytes.Clone(data), err) }
		if err := many.GetMany(ctx, ds, lent); err != nil {
			return remoteError(ctx, ds[0], err)
		}
		return nil
	}
	var g errgroup.Group
	g.SetLimit(8 * runtime.GOMAXPROCS(0))
	for i, d := range ds {
		g.Go(func() error {
			data, err := cache.ReadBlob(ctx, remote, d, smallBlob)
			take(i, data, err)
			return nil
		})
	}
	return g.Wait()
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
		if err := c.fetchBatch(gctx, batch); err != nil {
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

func (c *counting) fetchBatch(ctx context.Context, ds []digest.Digest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	blobs := make([]cache.Blob, 0, len(ds))
	var lacking []digest.Digest
	for _, d := range ds {
		if data, there := c.held[d]; there {
			blobs = append(blobs, cache.Blob{Digest: d, Data: data})
		} else {
			lacking = append(lacking, d)
		}
	}
	if len(lacking) == 0 {
		return c.loader.local.PutMany(ctx, blobs)
	}
	var failed error
	err := c.readAll(ctx, lacking, func(i int, data []byte, err error) {
		if err != nil && failed == nil {
			failed = err
			cancel() // the others are not waited for
		}
		blobs = append(blobs, cache.Blob{Digest: lacking[i], Data: data})
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	return c.loader.local.PutMany(ctx, blobs)
}
