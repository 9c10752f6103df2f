package disk

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache/digest"
)

// FindMissing implements cache.CAS. It costs one lstat a digest.
func (s *Store) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	missing, _, err := s.find(ctx, ds)
	return missing, err
}

// find returns the missing ones of ds and the names of those found that are perhaps not durable yet.
func (s *Store) find(ctx context.Context, ds []digest.Digest) (missing []digest.Digest, fresh []name, err error) {
	unique := make([]digest.Digest, 0, len(ds))
	seen := make(map[digest.Digest]struct{}, len(ds))
	for _, d := range ds {
		if err := checkDigest(d); err != nil {
			return nil, nil, fmt.Errorf("find missing blobs: %w", err)
		}
		if _, ok := seen[d]; !ok && !d.IsEmpty() {
			seen[d] = struct{}{}
			unique = append(unique, d)
		}
	}
	states := make([]blobState, len(unique))
	err = parallel(ctx, len(unique), func(i int) error {
		var err error
		states[i], err = s.look(name{blobs, unique[i]})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("find missing blobs: %w", err)
	}
	for i, state := range states {
		switch {
		case !state.present:
			missing = append(missing, unique[i])
		case state.fresh:
			fresh = append(fresh, name{blobs, unique[i]})
		}
	}
	return missing, fresh, nil
}

// stride is how many short steps are taken together between looks at the context and at the other workers.
const stride = 64

// parallel calls step for 0 to n-1, several at once, until one fails or ctx ends. Steps are short system calls that
// seldom wait for the disk.
func parallel(ctx context.Context, n int, step func(i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(max(2, runtime.GOMAXPROCS(0)), workers, n/stride+1) {
		g.Go(func() error {
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				from := int(next.Add(stride)) - stride
				if from >= n {
					return nil
				}
				for i := from; i < min(from+stride, n); i++ {
					if err := step(i); err != nil {
						return err
					}
				}
			}
		})
	}
	return g.Wait()
}
