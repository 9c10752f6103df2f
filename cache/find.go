package cache

import (
	"context"

	"github.com/pexpress/pexpress/cache/digest"
)

// HashFinder is a CAS that can be asked for a blob by its hash alone. Bazel's HTTP protocol names blobs so.
type HashFinder interface {
	// FindHash returns the whole digest of the blob, or ErrNotFound. Like FindMissing it keeps what it finds from eviction.
	FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error)
}

// FindHash returns the digest of the blob in c whose hash is sum, or ErrNotFound. The empty blob is always there. ok is
// false if c cannot be asked.
func FindHash(ctx context.Context, c CAS, fn digest.Function, sum [digest.Size]byte) (d digest.Digest, ok bool, err error) {
	f, ok := c.(HashFinder)
	if !ok {
		return digest.Digest{}, false, nil
	}
	if empty := fn.FromSum(sum, 0); empty.IsEmpty() {
		return empty, true, ctx.Err()
	}
	d, err = f.FindHash(ctx, fn, sum)
	return d, true, err
}
