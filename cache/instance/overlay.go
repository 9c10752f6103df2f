package instance

import (
	"context"
	"errors"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/full"
)

// overlay reads two CASes as one and writes the first of them.
type overlay struct {
	own, parent full.CAS
	mine        *recent
}

// newOverlay returns a CAS that reads own and parent, and writes own alone. What a miss costs decides the order: a store
// over S3 has to list what is new before it says no. An overlay mostly reads what its parent holds, so the parent is asked
// first, but for blobs that were seen in own lately. The order changes nothing else: a digest names the same bytes in both.
func newOverlay(own, parent full.CAS) full.CAS {
	return &overlay{own: own, parent: parent, mine: newRecent(64 << 10)}
}

// order returns the two in the order in which d is looked for.
func (o *overlay) order(d digest.Digest) (first, second full.CAS) {
	if o.mine.has(d) {
		return o.own, o.parent
	}
	return o.parent, o.own
}

// read tries both.
func (o *overlay) read(d digest.Digest, get func(full.CAS) (io.ReadCloser, error)) (io.ReadCloser, error) {
	first, second := o.order(d)
	rc, err := get(first)
	if !errors.Is(err, cache.ErrNotFound) {
		return rc, err
	}
	if rc, err = get(second); err == nil && second == o.own {
		o.mine.add(d)
	}
	return rc, err
}

// Get implements cache.CAS.
func (o *overlay) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return o.read(d, func(c full.CAS) (io.ReadCloser, error) { return c.Get(ctx, d) })
}

// GetFrom implements cache.RangeGetter.
func (o *overlay) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	return o.read(d, func(c full.CAS) (io.ReadCloser, error) { return c.GetFrom(ctx, d, offset) })
}

// GetZstd implements cache.ZstdGetter. Who does not hold a blob compressed may still hold it.
func (o *overlay) GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	var loose error
	rc, err := o.read(d, func(c full.CAS) (io.ReadCloser, error) {
		rc, err := c.GetZstd(ctx, d, offset)
		if errors.Is(err, cache.ErrNoZstd) {
			loose, err = err, cache.NotFound("compressed blob", d)
		}
		return rc, err
	})
	if loose != nil && errors.Is(err, cache.ErrNotFound) {
		return nil, loose
	}
	return rc, err
}

// FindHash implements cache.HashFinder.
func (o *overlay) FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error) {
	d, err := o.parent.FindHash(ctx, fn, sum)
	if !errors.Is(err, cache.ErrNotFound) {
		return d, err
	}
	if d, err = o.own.FindHash(ctx, fn, sum); err == nil {
		o.mine.add(d)
	}
	return d, err
}

// Put implements cache.CAS.
func (o *overlay) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	err := o.own.Put(ctx, d, r)
	if err == nil {
		o.mine.add(d)
	}
	return err
}

// PutMany implements cache.BatchPutter.
func (o *overlay) PutMany(ctx context.Context, blobs []cache.Blob) error {
	err := o.own.PutMany(ctx, blobs)
	if err == nil {
		for _, b := range blobs {
			o.mine.add(b.Digest)
		}
	}
	return err
}

// FindMissing implements cache.CAS.
func (o *overlay) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	rest, err := o.parent.FindMissing(ctx, ds)
	if err != nil || len(rest) == 0 {
		return nil, err
	}
	missing, err := o.own.FindMissing(ctx, rest)
	if err != nil {
		return nil, err
	}
	absent := make(map[digest.Digest]bool, len(missing))
	for _, d := range missing {
		absent[d] = true
	}
	for _, d := range rest {
		if !absent[d] {
			o.mine.add(d)
		}
	}
	return missing, nil
}

// GetMany implements cache.BatchGetter: first the blobs that were seen in own lately, then the others.
func (o *overlay) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	var mine, theirs []int
	for i, d := range ds {
		if o.mine.has(d) {
			mine = append(mine, i)
		} else {
			theirs = append(theirs, i)
		}
	}
	if err := full.Either(o.own.GetMany, o.parent.GetMany, isMiss).At(ctx, ds, mine, each); err != nil {
		return err
	}
	own := func(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
		return o.own.GetMany(ctx, ds, func(i int, data []byte, err error) {
			if err == nil {
				o.mine.add(ds[i])
			}
			each(i, data, err)
		})
	}
	return full.Either(o.parent.GetMany, own, isMiss).At(ctx, ds, theirs, each)
}

func isMiss(err error) bool { return errors.Is(err, cache.ErrNotFound) }

// firstOf reads several ActionCaches and writes the first.
type firstOf struct {
	own     cache.ActionCache
	parents []cache.ActionCache
}

// GetActionResult implements cache.ActionCache. The instance's own result counts before its parents': what a pull request
// built of its changes, it wants back.
func (f *firstOf) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	ar, err := f.own.GetActionResult(ctx, action)
	for _, p := range f.parents {
		if !errors.Is(err, cache.ErrNotFound) {
			break
		}
		ar, err = p.GetActionResult(ctx, action)
	}
	return ar, err
}

// UpdateActionResult implements cache.ActionCache.
func (f *firstOf) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	return f.own.UpdateActionResult(ctx, action, result)
}
