// Package full gives a decorator the whole of a CAS to stand on: every optional interface of package cache, whatever the
// CAS below has of them. Without it each decorator would hide what its base can do, or ask for it in every method.
package full

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// CAS is a CAS with all that one may offer.
type CAS interface {
	cache.CAS
	cache.BatchPutter
	cache.BatchGetter
	cache.ZstdGetter
	cache.RangeGetter
	cache.HashFinder
}

// Of returns c with every interface. What c lacks is done with what it has, the long way.
func Of(c cache.CAS) CAS {
	if f, ok := c.(CAS); ok {
		return f
	}
	return filled{c}
}

type filled struct{ cache.CAS }

// PutMany implements cache.BatchPutter.
func (f filled) PutMany(ctx context.Context, blobs []cache.Blob) error {
	return cache.PutAll(ctx, f.CAS, blobs)
}

// GetMany implements cache.BatchGetter.
func (f filled) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	return cache.GetAll(ctx, f.CAS, ds, cache.MaxMessage, each)
}

// GetFrom implements cache.RangeGetter.
func (f filled) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	if r, ok := f.CAS.(cache.RangeGetter); ok {
		return r.GetFrom(ctx, d, offset)
	}
	if offset < 0 || offset > d.Size() {
		return nil, fmt.Errorf("read blob %s: it has no offset %d", d, offset)
	}
	rc, err := f.Get(ctx, d)
	if err != nil || offset == 0 {
		return rc, err
	}
	if _, err := io.CopyN(io.Discard, rc, offset); err != nil {
		rc.Close()
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	return rc, nil
}

// GetZstd implements cache.ZstdGetter.
func (f filled) GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	if z, ok := f.CAS.(cache.ZstdGetter); ok {
		return z.GetZstd(ctx, d, offset)
	}
	return nil, cache.ErrNoZstd
}

// FindHash implements cache.HashFinder. There is no long way: the error says so as the status that clients are to see.
func (f filled) FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error) {
	d, ok, err := cache.FindHash(ctx, f.CAS, fn, sum)
	if !ok {
		return d, status.Error(codes.Unimplemented, "this cache finds no blobs by hash alone: use gRPC")
	}
	return d, err
}
