package cache

import (
	"bytes"
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache/digest"
)

// Blob is a blob held in memory together with its name.
type Blob struct {
	Digest digest.Digest
	Data   []byte
}

// BatchPutter is a CAS that stores many small blobs for less than the sum of their Puts, one sync in place of many.
type BatchPutter interface {
	// PutMany stores every blob, under the terms of CAS.Put. After an error any subset of them may be stored.
	PutMany(ctx context.Context, blobs []Blob) error
}

// putsAtOnce is how many Puts a PutAll without a BatchPutter keeps under way: enough to hide the latency of a
// remote cache, few enough not to crowd out its other clients.
const putsAtOnce = 8

// PutAll stores every blob, at once where c can. Blobs that c holds already are not sent. It promises no order:
// whoever needs one blob to be there before another calls PutAll for each in turn.
func PutAll(ctx context.Context, c CAS, blobs []Blob) error {
	if b, ok := c.(BatchPutter); ok {
		return b.PutMany(ctx, blobs)
	}
	ds := make([]digest.Digest, len(blobs))
	data := make(map[digest.Digest][]byte, len(blobs))
	for i, b := range blobs {
		ds[i], data[b.Digest] = b.Digest, b.Data
	}
	missing, err := c.FindMissing(ctx, ds)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(putsAtOnce)
	for _, d := range missing {
		g.Go(func() error {
			if err := c.Put(ctx, d, bytes.NewReader(data[d])); err != nil {
				return fmt.Errorf("put blob %s: %w", d, err)
			}
			return nil
		})
	}
	return g.Wait()
}
