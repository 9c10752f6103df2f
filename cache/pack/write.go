package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// smallBlob is the size up to which a blob is a record in a segment.
const smallBlob = 256 << 10

// Put implements cache.CAS.
func (c *Cache) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.IsZero() || d.Size() > maxSize {
		return fmt.Errorf("put blob: %w: %s", digest.ErrInvalid, d)
	}
	if c.has(d) {
		return nil
	}
	if d.Size() <= smallBlob {
		b, err := io.ReadAll(digest.NewReader(io.NopCloser(r), d))
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("put blob %s: %w", d, err)
		}
		return c.put(d, []cache.Blob{{Digest: d, Data: b}})
	}
	if d.Size() > c.s.opts.MaxBytes { // evicts nothing, in vain
		return fmt.Errorf("put blob %s: %w", d, c.s.noRoom())
	}
	if err := c.putLarge(ctx, d, r); err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	return nil
}

// putLarge stores a blob in a file of its own.
func (c *Cache) putLarge(ctx context.Context, d digest.Digest, r io.Reader) error {
	s := c.s
	id := s.nextID.Add(1)
	defer s.release(id) // of a file that is stored nothing is left to release
	stored, err := s.writeFile(ctx, id, d, r)
	if err != nil {
		return full(err)
	}
	ch := &chunk{}
	payload := binary.LittleEndian.AppendUint64(nil, id)
	payload = binary.LittleEndian.AppendUint64(payload, uint64(stored))
	ch.add(record{kind: kindFile, ns: c.ns, digest: d, time: s.seconds()}, payload)
	if err := s.commit(ch); err != nil {
		return errors.Join(err, removeFile(s, id))
	}
	return nil
}

// PutMany implements cache.BatchPutter.
func (c *Cache) PutMany(ctx context.Context, blobs []cache.Blob) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	small := make([]cache.Blob, 0, len(blobs))
	for _, b := range blobs {
		switch {
		case b.Digest.IsZero():
			return fmt.Errorf("put blob: %w: no digest given", digest.ErrInvalid)
		case b.Digest.Size() > smallBlob:
			if err := c.Put(ctx, b.Digest, bytes.NewReader(b.Data)); err != nil {
				return err
			}
		case b.Digest.Function().FromBytes(b.Data) != b.Digest:
			return fmt.Errorf("put blob: %w: %s", digest.ErrMismatch, b.Digest)
		default:
			small = append(small, b)
		}
	}
	return c.PutVerified(small)
}

// PutVerified stores small blobs, at most 256 KiB each, that the caller has verified.
func (c *Cache) PutVerified(blobs []cache.Blob) error {
	if len(blobs) == 0 {
		return nil
	}
	return c.put(blobs[0].Digest, blobs)
}

// put commits blobs; those that are there already are left out.
func (c *Cache) put(what digest.Digest, blobs []cache.Blob) error {
	total := 0
	for _, b := range blobs {
		total += len(b.Data) + headerSize
	}
	ch := &chunk{data: make([]byte, 0, total), items: make([]item, 0, len(blobs))}
	now := c.s.seconds()
	for _, b := range blobs {
		if !c.has(b.Digest) {
			ch.add(record{kind: kindBlob, ns: c.ns, digest: b.Digest, time: now}, b.Data)
		}
	}
	if err := c.s.commitAlone(ch); err != nil {
		return fmt.Errorf("put blob %s and %d others: %w", what, len(blobs)-1, err)
	}
	return nil
}
