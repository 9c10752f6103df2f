package tiered

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

var (
	_ cache.HashFinder = (*Cache)(nil)
	_ cache.HashFinder = (*Delayed)(nil)
)

// FindHash implements cache.HashFinder. Like all that is said of presence it is the back's to say.
func (c *Cache) FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error) {
	d, ok, err := cache.FindHash(ctx, c.back, fn, sum)
	if !ok {
		return d, status.Error(codes.Unimplemented, "the far tier finds no blobs by hash alone: use gRPC")
	}
	return d, err
}

// FindHash implements cache.HashFinder.
func (c *Delayed) FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error) {
	// First the journal: what leaves it in between is in the back by then.
	d, ok, err := cache.FindHash(ctx, c.journal, fn, sum)
	if ok && !errors.Is(err, cache.ErrNotFound) {
		return d, err
	}
	return c.Cache.FindHash(ctx, fn, sum)
}
