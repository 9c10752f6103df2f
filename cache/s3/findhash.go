package s3

import (
	"context"
	"fmt"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

var _ cache.HashFinder = (*Cache)(nil)

// FindHash implements cache.HashFinder. An entry's place in the index does not depend on its size.
func (c *Cache) FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error) {
	want := fn.FromSum(sum, 0)
	if want.IsEmpty() {
		return want, ctx.Err()
	}
	var d digest.Digest
	err := c.s.answer(ctx, question{promise: true, ask: func(x *index) ([]int, bool) {
		d = digest.Digest{}
		if size, ok := x.sizeOf(c.name, want); ok {
			named := fn.FromSum(sum, size)
			p, st := x.blob(c.name, named)
			if st == live {
				c.s.touchPlace(x, p, c.name, kindBlob, named)
				d = named
				return nil, false
			}
		}
		if shard := int(sum[0]); x.missing(shard) == unknown {
			return []int{shard}, true
		}
		return nil, true
	}})
	if err != nil {
		return digest.Digest{}, fmt.Errorf("find blob %s: %w", want.Hash(), err)
	}
	if d.IsZero() {
		return d, cache.NotFound("blob", want)
	}
	return d, nil
}

// sizeOf returns the size of the blob that has d's hash.
func (x *index) sizeOf(namespace string, d digest.Digest) (int64, bool) {
	ns, ok := x.namespaces.of[namespace]
	if !ok {
		return 0, false
	}
	k := makeKey(ns, kindBlob, d)
	t := &x.blobs[k.shard()]
	if t.n == 0 {
		return 0, false
	}
	for i := t.home(&k); t.slots[i].key.meta != 0; {
		if s := &t.slots[i].key; s.hash == k.hash && s.meta == k.meta {
			return s.blobSize(), true
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	return 0, false
}
