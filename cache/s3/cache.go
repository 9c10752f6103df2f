package s3

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Cache is one namespace of a Store: a CAS and an ActionCache of its own.
type Cache struct {
	s    *Store
	name string
}

var (
	_ cache.CAS         = (*Cache)(nil)
	_ cache.ActionCache = (*Cache)(nil)
	_ cache.BatchPutter = (*Cache)(nil)
	_ cache.BatchGetter = (*Cache)(nil)
	_ cache.RangeGetter = (*Cache)(nil)
)

// checkDigest refuses what names nothing.
func checkDigest(d digest.Digest) error {
	if d.IsZero() {
		return fmt.Errorf("%w: no digest given", digest.ErrInvalid)
	}
	return nil
}

// Get implements cache.CAS.
func (c *Cache) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return c.GetFrom(ctx, d, 0)
}

// GetFrom implements cache.RangeGetter. Of a blob under 256 KiB all is read, and verified by its digest.
func (c *Cache) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	if err := errors.Join(ctx.Err(), checkDigest(d)); err != nil {
		return nil, err
	}
	if offset < 0 || offset > d.Size() {
		return nil, fmt.Errorf("blob %s has no byte %d", d, offset)
	}
	if d.IsEmpty() {
		return emptyReader{}, nil
	}
	var rc io.ReadCloser
	err := c.read(ctx, d, func(r record) (err error) {
		rc, err = c.s.open(ctx, r, offset)
		return err
	})
	return rc, err
}

// emptyReader is the empty blob.
type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyReader) Close() error             { return nil }

// read finds a blob and hands its place to use. If the object is gone, the index was out of date: the record may have
// been copied elsewhere, so it is looked for once more.
func (c *Cache) read(ctx context.Context, d digest.Digest, use func(record) error) error {
	for range tries {
		f, ok, err := c.s.locate(ctx, c.name, d)
		if err != nil {
			return fmt.Errorf("find blob %s: %w", d, err)
		}
		if !ok {
			break
		}
		if err = use(record{f, c.name, d}); !errors.Is(err, ErrNoObject) {
			return err
		}
		c.s.index.lose(f.pack)
		if err := c.s.look(ctx); err != nil {
			return fmt.Errorf("find blob %s again: %w", d, err)
		}
	}
	return cache.NotFound("blob", d)
}

// FindMissing implements cache.CAS. What it does not return stays readable for the retention time. It makes no request if
// all are known.
func (c *Cache) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	var missing []digest.Digest
	for _, d := range ds {
		if err := checkDigest(d); err != nil {
			return nil, err
		}
	}
	err := c.s.answer(ctx, question{promise: true, ask: func(x *index) ([]int, bool) {
		missing = missing[:0]
		var need shardSet
		for _, d := range ds {
			if d.IsEmpty() {
				continue
			}
			p, st := x.blob(c.name, d)
			switch {
			case st == live:
				c.s.touchPlace(x, p, c.name, kindBlob, d)
				continue
			case st == unknown, x.missing(int(d.Sum()[0])) == unknown:
				need.add(d)
			}
			missing = append(missing, d)
		}
		return need.all, len(missing) > 0
	}})
	if err != nil {
		return nil, fmt.Errorf("find missing blobs: %w", err)
	}
	return unique(missing), nil
}

// unique drops what is there already.
func unique(ds []digest.Digest) []digest.Digest {
	if len(ds) < 2 {
		return ds
	}
	seen := make(map[digest.Digest]bool, len(ds))
	out := ds[:0]
	for _, d := range ds {
		if !seen[d] {
			seen[d] = true
			out = append(out, d)
		}
	}
	return out
}

// present returns which of ds this node may say are present, without a request unless its view is old.
func (c *Cache) present(ctx context.Context, ds []digest.Digest) ([]bool, error) {
	have := make([]bool, len(ds))
	err := c.s.answer(ctx, question{promise: true, local: true, ask: func(x *index) ([]int, bool) {
		for i, d := range ds {
			p, st := x.blob(c.name, d)
			if have[i] = st == live; have[i] {
				c.s.touchPlace(x, p, c.name, kindBlob, d)
			}
		}
		return nil, false
	}})
	return have, err
}
