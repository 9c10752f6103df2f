package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

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
	if d.Size() > maxBlob {
		return fmt.Errorf("%w: %s: the largest blob has %d bytes", digest.ErrInvalid, d, int64(maxBlob))
	}
	return c.mayWrite()
}

// mayWrite fails if nothing can be written to the namespace, whatever it is.
func (c *Cache) mayWrite() error {
	if c.s.o.ReadOnly {
		return errReadOnly
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

// patience is how long one upload waits for another one of the same blob.
const patience = 30 * time.Second

// putLarge sends a blob, unless another call is sending it: then this one waits for a while, and sends it if that failed or
// goes on for long. Its client may send nothing for hours.
func (c *Cache) putLarge(ctx context.Context, d digest.Digest, r io.Reader) error {
	k, late := itemKey{c.name, d}, time.NewTimer(patience)
	defer late.Stop()
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
		case <-late.C:
			return c.s.putLarge(ctx, header{kindBlob, c.name, d, d.Size()}, r)
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
