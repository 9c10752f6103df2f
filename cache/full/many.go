package full

import (
	"context"

	"github.com/pexpress/pexpress/cache/digest"
)

// GetMany is the method of cache.BatchGetter.
type GetMany func(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error

// Either reads every blob from first, and those for which missed says so from second, which is not called while first may
// hold a lock.
func Either(first, second GetMany, missed func(error) bool) GetMany {
	return func(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
		var far []int
		err := first(ctx, ds, func(i int, data []byte, err error) {
			if missed(err) {
				far = append(far, i)
				return
			}
			each(i, data, err)
		})
		if err != nil {
			return err
		}
		return second.At(ctx, ds, far, each)
	}
}

// At reads the blobs at those places of ds.
func (get GetMany) At(ctx context.Context, ds []digest.Digest, places []int, each func(i int, data []byte, err error)) error {
	if len(places) == 0 {
		return nil
	}
	ask := make([]digest.Digest, len(places))
	for i, place := range places {
		ask[i] = ds[place]
	}
	return get(ctx, ask, func(i int, data []byte, err error) { each(places[i], data, err) })
}
