package s3

import (
	"bytes"
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

// Put implements cache.CAS. A small blob shares a commit with others that are put at the same time, a large one is sent
// while it is read.
func (c *Cache) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := c.writable(ctx, d); err != nil {
		return fmt.Errorf("put blob: %w", err)
	}
	if d.IsEmpty() {
		return c.drain(d, r)
	}
	have, err := c.present(ctx, []digest.Digest{d})
	if err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	if have[0] {
		return nil
	}
	if d.Size() > maxSmall {
		err = c.putLarge(ctx, d, r)
	} else {
		err = c.putSmall(ctx, d, r)
	}
	if err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	return nil
}

func (c *Cache) writable(ctx context.Context, d digest.Digest) error {
	if err := errors.Join(ctx.Err(), checkDigest(d)); err != nil {
		return err
	}
	if c.s.o.ReadOnly {
		return errors.New("the bucket was opened for reading only")
	}
	if len(c.name) > maxName {
		return fmt.Errorf("the namespace's name has %d bytes, %d are the most", len(c.name), maxName)
	}
	return nil
}

func (c *Cache) drain(d digest.Digest, r io.Reader) error {
	if _, err := io.Copy(io.Discard, digest.NewReader(io.NopCloser(r), d)); err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	return nil
}

func (c *Cache) putSmall(ctx context.Context, d digest.Digest, r io.Reader) error {
	b := bytes.NewBuffer(make([]byte, 0, d.Size()+bytes.MinRead))
	if _, err := b.ReadFrom(digest.NewReader(io.NopCloser(r), d)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.s.commits.commit(ctx, [][]item{{c.blob(d, b.Bytes())}})
}

func (c *Cache) blob(d digest.Digest, b []byte) item {
	return item{header: header{kindBlob, c.name, d, int64(len(b))}, payload: b}
}

// putLarge sends a blob, unless another call is sending it: then this one waits, and sends it only if that failed.
func (c *Cache) putLarge(ctx context.Context, d digest.Digest, r io.Reader) error {
	k := itemKey{c.name, d}
	for {
		done := make(chan struct{})
		other, busy := c.s.sending.LoadOrStore(k, done)
		if !busy {
			defer func() {
				c.s.sending.Delete(k)
				close(done)
			}()
			return c.s.putLarge(ctx, header{kindBlob, c.name, d, d.Size()}, r)
		}
		select {
		case <-other.(chan struct{}):
		case <-ctx.Done():
			return ctx.Err()
		}
		have, err := c.present(ctx, []digest.Digest{d})
		if err != nil || have[0] {
			return err
		}
	}
}

// PutMany implements cache.BatchPutter. If it took so long that what it found or stored first may be condemned by now, it
// looks again before it acknowledges.
func (c *Cache) PutMany(ctx context.Context, blobs []cache.Blob) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range blobs {
		if err := c.writable(ctx, blobs[i].Digest); err != nil {
			return fmt.Errorf("put blob: %w", err)
		}
	}
	for range tries {
		asked := c.s.now()
		if err := c.putMissing(ctx, blobs); err != nil {
			return err
		}
		if since(c.s.now(), asked) < maxAnswer {
			return nil
		}
	}
	return fmt.Errorf("put %d blobs: %w: the bucket is too slow", len(blobs), ErrStale)
}

// putMissing stores those of blobs that are not present.
func (c *Cache) putMissing(ctx context.Context, blobs []cache.Blob) error {
	ds := make([]digest.Digest, len(blobs))
	for i := range blobs {
		ds[i] = blobs[i].Digest
	}
	have, err := c.present(ctx, ds)
	if err != nil {
		return fmt.Errorf("put %d blobs: %w", len(blobs), err)
	}
	groups := make([][]item, 0, len(blobs))
	var large []cache.Blob
	for i, b := range blobs {
		if have[i] {
			continue
		}
		if got := b.Digest.Function().FromBytes(b.Data); got != b.Digest {
			return fmt.Errorf("put blob %s: %w: got %s", b.Digest, digest.ErrMismatch, got)
		}
		switch {
		case len(b.Data) == 0:
		case len(b.Data) > maxSmall:
			large = append(large, b)
		default:
			groups = append(groups, []item{c.blob(b.Digest, b.Data)})
		}
	}
	if err := c.s.commits.commit(ctx, groups); err != nil {
		return fmt.Errorf("put %d blobs: %w", len(groups), err)
	}
	return c.putAll(ctx, large)
}
