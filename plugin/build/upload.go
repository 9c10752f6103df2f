package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// PutFiles stores those of the files that the CAS lacks; files maps a digest to a path that holds its bytes. A file
// that has changed since it was hashed is refused, and the error says so.
func PutFiles(ctx context.Context, cas cache.CAS, files map[digest.Digest]string) error {
	all := make([]digest.Digest, 0, len(files))
	for d := range files {
		all = append(all, d)
	}
	missing, err := cas.FindMissing(ctx, all)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, d := range missing {
		g.Go(func() error {
			f, err := os.Open(files[d])
			if err != nil {
				return err
			}
			defer f.Close()
			err = cas.Put(ctx, d, f)
			if errors.Is(err, digest.ErrMismatch) {
				return fmt.Errorf("store %s (did it change during the build?): %w", files[d], err)
			}
			if err != nil {
				return fmt.Errorf("store %s: %w", files[d], err)
			}
			return nil
		})
	}
	return g.Wait()
}
