package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
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

// BatchGetter is a CAS that reads many small blobs for less than the sum of their Gets.
type BatchGetter interface {
	// GetMany calls each once for every digest, in any order but one at a time, under the terms of CAS.Get; i is the
	// digest's place in ds. The data is only lent: it is overwritten when each returns. An error of GetMany itself means
	// that the rest was not tried.
	GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error
}

// ErrNoZstd is wrapped by the error for a blob that is not at hand in compressed form: Get has it, if there is such a blob.
var ErrNoZstd = errors.New("not held compressed")

// ZstdGetter is a CAS that holds blobs compressed and can hand them on as they are.
type ZstdGetter interface {
	// GetZstd returns the blob from offset on as one or more zstd frames, never as a part of one. What it yields is checked
	// against stored checksums, not against d: whoever decompresses it verifies it. ErrNoZstd sends the caller to Get.
	GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error)
}

// RangeGetter is a CAS that reads from the middle of a blob without reading what is before it.
type RangeGetter interface {
	// GetFrom returns the blob's bytes from offset on, verified as far as a part can be: by stored checksums.
	GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error)
}

// TreeGetter is a CAS that reads the Directories of a tree at once.
type TreeGetter interface {
	// GetTree calls each for Directories of the tree below root, in any order. Some may be absent, and none is verified: the
	// digest of its bytes says which one it is.
	GetTree(ctx context.Context, root digest.Digest, each func(*repb.Directory) error) error
}

// GetAll calls each for every digest, as BatchGetter says. No blob may be larger than limit.
func GetAll(ctx context.Context, c CAS, ds []digest.Digest, limit int64, each func(i int, data []byte, err error)) error {
	if b, ok := c.(BatchGetter); ok {
		return b.GetMany(ctx, ds, each)
	}
	for i, d := range ds {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := ReadBlob(ctx, c, d, limit)
		each(i, data, err)
	}
	return nil
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
