package build

import (
	"bytes"
	"context"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// PutBlobs stores blobs that are held in memory.
func PutBlobs(ctx context.Context, cas cache.CAS, blobs map[digest.Digest][]byte) error {
	for d, b := range blobs {
		if err := cas.Put(ctx, d, bytes.NewReader(b)); err != nil {
			return err
		}
	}
	return nil
}
