package full

import (
	"context"
	"io"
	"sync/atomic"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// Cache is a CAS and an ActionCache.
type Cache interface {
	cache.CAS
	cache.ActionCache
}

// Lazy is a cache that is made when something is first written to it. Before that it holds nothing, and to ask it costs
// nothing that lasts: names that clients make up and only ask for must not use up what a store has few of.
type Lazy struct {
	find func() (Cache, bool)
	make func() (Cache, error)
	made atomic.Pointer[parts]
	none parts // what is read before
}

var (
	_ CAS               = (*Lazy)(nil)
	_ cache.ActionCache = (*Lazy)(nil)
)

type parts struct {
	CAS
	cache.ActionCache
}

// NewLazy returns a cache that is what find says, once there is one, and that is made by make. Both may be called several
// times, and by several callers at once; they return the same cache then.
func NewLazy(find func() (Cache, bool), make func() (Cache, error)) *Lazy {
	empty := memory.New()
	return &Lazy{find: find, make: make, none: parts{Of(empty), empty}}
}

// read returns what there is to read.
func (l *Lazy) read() *parts {
	if p := l.made.Load(); p != nil {
		return p
	}
	if c, ok := l.find(); ok {
		return l.keep(c)
	}
	return &l.none
}

// write returns what to write to.
func (l *Lazy) write() (*parts, error) {
	if p := l.made.Load(); p != nil {
		return p, nil
	}
	c, err := l.make()
	if err != nil {
		return nil, err
	}
	return l.keep(c), nil
}

func (l *Lazy) keep(c Cache) *parts {
	l.made.CompareAndSwap(nil, &parts{Of(c), c})
	return l.made.Load()
}

// Get implements cache.CAS.
func (l *Lazy) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return l.read().Get(ctx, d)
}

// GetFrom implements cache.RangeGetter.
func (l *Lazy) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	return l.read().GetFrom(ctx, d, offset)
}

// GetZstd implements cache.ZstdGetter.
func (l *Lazy) GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	return l.read().GetZstd(ctx, d, offset)
}

// GetMany implements cache.BatchGetter.
func (l *Lazy) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	return l.read().GetMany(ctx, ds, each)
}

// FindMissing implements cache.CAS.
func (l *Lazy) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	return l.read().FindMissing(ctx, ds)
}

// FindHash implements cache.HashFinder.
func (l *Lazy) FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error) {
	return l.read().FindHash(ctx, fn, sum)
}

// GetActionResult implements cache.ActionCache.
func (l *Lazy) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	return l.read().GetActionResult(ctx, action)
}

// Put implements cache.CAS.
func (l *Lazy) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	p, err := l.write()
	if err != nil {
		return err
	}
	return p.Put(ctx, d, r)
}

// PutMany implements cache.BatchPutter. Nothing to write makes nothing.
func (l *Lazy) PutMany(ctx context.Context, blobs []cache.Blob) error {
	if len(blobs) == 0 {
		return ctx.Err()
	}
	p, err := l.write()
	if err != nil {
		return err
	}
	return p.PutMany(ctx, blobs)
}

// UpdateActionResult implements cache.ActionCache.
func (l *Lazy) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	p, err := l.write()
	if err != nil {
		return err
	}
	return p.UpdateActionResult(ctx, action, result)
}
