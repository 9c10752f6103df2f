package build

import (
	"context"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// PutBlobs stores blobs that are held in memory.
func PutBlobs(ctx context.Context, cas cache.CAS, blobs map[digest.Digest][]byte) error {
	all := make([]cache.Blob, 0, len(blobs))
	for d, b := range blobs {
		all = append(all, cache.Blob{Digest: d, Data: b})
	}
	return cache.PutAll(ctx, cas, all)
}
