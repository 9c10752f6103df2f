// Package loader brings trees from a cache onto a host: digest in, verified directory out.
//
// The host keeps blobs in a store of its own, so that of a new version only what is new travels, and so that what was
// loaded once can be had again without the cache. A tree that was asked for is complete or an error; several askers for
// one tree share one load.
package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/cache/merkle"
)

// ErrCache is wrapped by errors that say that the cache could not be used. Loading again may help.
var ErrCache = errors.New("the cache cannot be used")

// Open opens the cache that trees come from. It is called when something is missing on the host, not before: what is
// here already is served without the cache.
type Open func(ctx context.Context) (cache.CAS, io.Closer, error)

// Loader loads trees. It is safe for concurrent use.
type Loader struct {
	local *disk.Store
	dir   string
	open  Open

	flight  singleflight.Group
	collect sync.RWMutex // held by loads for reading, by Keep for writing
	mu      sync.Mutex
	remote  cache.CAS
	closer  io.Closer
}

// Stats says what came from the cache.
type Stats struct{ Blobs, Bytes int64 }

// New returns a Loader that keeps blobs and directories below dir.
func New(dir string, open Open) (*Loader, error) {
	local, err := disk.Open(filepath.Join(dir, "blobs"), disk.Options{})
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"trees", "tmp"} {
		if d == "tmp" {
			if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
				return nil, errors.Join(err, local.Close())
			}
		}
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, errors.Join(err, local.Close())
		}
	}
	return &Loader{local: local, dir: dir, open: open}, nil
}

// Close ends the connection to the cache.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.local.Close()
	if l.closer != nil {
		err = errors.Join(err, l.closer.Close())
	}
	return err
}

// CAS returns the host's own store, in which all that was loaded is.
func (l *Loader) CAS() cache.CAS { return l.local }

// Load makes sure that the host has all of the tree, and pins it until Keep is called without it.
func (l *Loader) Load(ctx context.Context, root digest.Digest) (*merkle.Tree, Stats, error) {
	type loaded struct {
		tree  *merkle.Tree
		stats Stats
	}
	v, err, _ := l.flight.Do(root.String(), func() (any, error) {
		l.collect.RLock()
		defer l.collect.RUnlock()
		t, st, err := l.load(ctx, root)
		return loaded{t, st}, err
	})
	if err != nil {
		return nil, Stats{}, fmt.Errorf("load tree %s: %w", root, err)
	}
	return v.(loaded).tree, v.(loaded).stats, nil
}

func (l *Loader) load(ctx context.Context, root digest.Digest) (*merkle.Tree, Stats, error) {
	c := &counting{loader: l}
	tree, err := merkle.Load(ctx, c, root)
	if err != nil {
		return nil, Stats{}, err
	}
	all := closure(tree)
	if err := l.local.Pin(ctx, pinName(root), all); err != nil {
		return nil, Stats{}, err
	}
	missing, err := l.local.FindMissing(ctx, all)
	if err != nil {
		return nil, Stats{}, err
	}
	err = c.fetchAll(ctx, missing)
	return tree, Stats{c.blobs.Load(), c.bytes.Load()}, err
}

func pinName(root digest.Digest) string { return "tree-" + root.Hash() }

// closure returns all that a tree consists of.
func closure(t *merkle.Tree) []digest.Digest {
	var all []digest.Digest
	for d := range t.Blobs() {
		all = append(all, d)
	}
	for _, d := range t.Files() {
		all = append(all, d)
	}
	return all
}

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
}

// Get implements cache.CAS.
func (c *counting) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	rc, err := c.loader.local.Get(ctx, d)
	if !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, digest.ErrMismatch) {
		return rc, err
	}
	if err := c.fetch(ctx, d); err != nil {
		return nil, err
	}
	return c.loader.local.Get(ctx, d)
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
	if err := c.loader.local.Put(ctx, d, rc); err != nil {
		return fmt.Errorf("fetch blob %s: %w", d, err)
	}
	c.count(d)
	return nil
}

func (c *counting) count(d digest.Digest) {
	c.blobs.Add(1)
	c.bytes.Add(d.Size())
}

// remoteError tells a blob that is not there from a cache that is not there.
func remoteError(ctx context.Context, d digest.Digest, err error) error {
	if errors.Is(err, cache.ErrNotFound) || errors.Is(err, digest.ErrMismatch) || ctx.Err() != nil {
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
	if _, err := c.loader.cache(ctx); err != nil {
		return err
	}
	var small []digest.Digest
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
		n, bytes := 0, int64(0)
		for n < len(small) && bytes+small[n].Size() <= batchBytes {
			bytes += small[n].Size()
			n++
		}
		batch := small[:n]
		small = small[n:]
		if err := c.fetchBatch(gctx, batch); err != nil {
			return errors.Join(err, g.Wait())
		}
	}
	return g.Wait()
}

func (c *counting) fetchBatch(ctx context.Context, ds []digest.Digest) error {
	blobs := make([]cache.Blob, len(ds))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8 * runtime.GOMAXPROCS(0))
	for i, d := range ds {
		g.Go(func() error {
			b, err := cache.ReadBlob(gctx, c.loader.remote, d, smallBlob)
			if err != nil {
				return remoteError(gctx, d, err)
			}
			blobs[i] = cache.Blob{Digest: d, Data: b}
			c.count(d)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.loader.local.PutMany(ctx, blobs)
}

// Read returns one file of a loaded tree.
func (l *Loader) Read(ctx context.Context, t *merkle.Tree, path string, limit int64) ([]byte, error) {
	for p, d := range t.Files() {
		if p == path {
			var buf bytes.Buffer
			rc, err := l.local.Get(ctx, d)
			if err != nil {
				return nil, err
			}
			defer rc.Close()
			_, err = buf.ReadFrom(io.LimitReader(rc, limit))
			return buf.Bytes(), err
		}
	}
	return nil, fmt.Errorf("tree %s has no %s", t.Root(), strings.TrimSpace(path))
}
