package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// located is a copy of an entry, with the segment that it points to.
type located struct {
	entry
	g *segment
}

// locate returns where an entry is, and notes that it is used.
func (s *Store) locate(r *ref) (located, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.locateLocked(r, s.seconds())
}

func (s *Store) locateLocked(r *ref, now uint32) (located, bool) {
	e := s.table.find(r)
	if e == nil {
		return located{}, false
	}
	// With a promise to keep, only what is recorded durably counts; see FindMissing.
	if s.opts.Retention == 0 && e.touched() != now {
		atomic.StoreUint32(&e.touch, now)
	}
	at := located{entry: *e}
	if !at.isFile() {
		at.g = s.segments[at.segment()]
	}
	return at, true
}

// damaged sets the entry aside: from now on it is a miss, so that it is stored again. A file that has gone is a miss
// at once.
func (s *Store) damaged(at located, d digest.Digest, err error) error {
	if !errors.Is(err, errRecord) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", d, err)
	}
	r := at.ref()
	s.mu.RLock()
	e := s.table.find(&r)
	same := e != nil && e.loc == at.loc
	s.mu.RUnlock()
	if same {
		s.stats.damaged.Add(1)
		c := &chunk{still: func() bool {
			s.mu.RLock()
			defer s.mu.RUnlock()
			e := s.table.find(&r)
			return e != nil && e.loc == at.loc // else it was stored anew meanwhile
		}}
		c.add(record{kind: kindGone | ofAction&kind(at.class), ns: r.ns, digest: d, time: s.seconds()})
		if err := s.commit(c); err != nil {
			return fmt.Errorf("read %s: %w", d, err)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return cache.NotFound("blob", d)
	}
	return fmt.Errorf("%w: %s is damaged on disk and set aside: %w", digest.ErrMismatch, d, err)
}

// small reads an entry's record into buf, if that is large enough, and returns its payload.
func (s *Store) small(at located, d digest.Digest, buf []byte) ([]byte, error) {
	if at.g == nil {
		return nil, fmt.Errorf("read %s: %w", d, ErrClosed)
	}
	r, payload, err := at.g.read(at.offset(), at.size(), buf)
	if errors.Is(err, errGone) {
		f := at.ref()
		again, ok := s.locate(&f)
		if !ok || again.isFile() || again.g == at.g {
			return nil, cache.NotFound("blob", d)
		}
		return s.small(again, d, buf)
	}
	if err == nil && r.digest != d {
		if r.digest.Sum() == d.Sum() {
			return nil, cache.NotFound("blob", d) // the right hash with another size
		}
		err = fmt.Errorf("%w: it is another one's", errRecord)
	}
	if err != nil {
		return nil, s.damaged(at, d, err)
	}
	return payload, nil
}

// find locates a blob.
func (c *Cache) find(d digest.Digest) (located, error) {
	if d.IsZero() {
		return located{}, fmt.Errorf("read blob: %w: no digest given", digest.ErrInvalid)
	}
	r := refOf(d, c.ns, 0)
	at, ok := c.s.locate(&r)
	if !ok || at.size() != d.Size() {
		c.s.stats.misses.Add(1)
		return located{}, cache.NotFound("blob", d)
	}
	c.s.stats.hits.Add(1)
	return at, nil
}

// Get implements cache.CAS.
func (c *Cache) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return c.GetFrom(ctx, d, 0)
}

// GetFrom implements cache.RangeGetter.
func (c *Cache) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if offset < 0 || offset > d.Size() {
		return nil, fmt.Errorf("read %s: offset %d is outside of it", d, offset)
	}
	if d.IsEmpty() {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	at, err := c.find(d)
	if err != nil {
		return nil, err
	}
	if !at.isFile() {
		b, err := c.s.small(at, d, nil)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(b[offset:])), nil
	}
	o, err := c.s.openFile(at.loc, d)
	if errors.Is(err, fs.ErrNotExist) {
		if again, err := c.find(d); err == nil && again.loc != at.loc {
			return c.GetFrom(ctx, d, offset) // it was stored anew meanwhile
		}
	}
	if err != nil {
		return nil, c.s.damaged(at, d, err)
	}
	return newFileReader(c.s, at, d, o, offset)
}

// GetZstd implements cache.ZstdGetter.
func (c *Cache) GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := c.GetFrom(ctx, d, offset)
	if err != nil {
		return nil, err
	}
	if r, ok := rc.(*fileReader); ok {
		z := &zstdReader{fileReader: r}
		if len(r.left) > 0 { // the offset was inside a frame
			r.left = encoder.EncodeAll(r.left, nil)
		}
		return z, nil
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(encoder.EncodeAll(b, nil))), nil
}

// GetMany implements cache.BatchGetter.
func (c *Cache) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	ats := make([]located, len(ds))
	now := c.s.seconds()
	c.s.mu.RLock()
	for i, d := range ds {
		r := refOf(d, c.ns, 0)
		if at, ok := c.s.locateLocked(&r, now); ok && at.size() == d.Size() {
			ats[i] = at
		}
	}
	c.s.mu.RUnlock()
	hits := int64(0)
	for i, d := range ds {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch at := ats[i]; {
		case d.IsEmpty():
			each(i, nil, nil)
		case at.class == 0:
			each(i, nil, cache.NotFound("blob", d))
		case at.isFile():
			data, err := cache.ReadBlob(ctx, c, d, d.Size())
			each(i, data, err)
		default:
			data, err := c.s.small(at, d, (*buf)[:0])
			each(i, data, err)
		}
		if ats[i].class != 0 {
			hits++
		}
	}
	c.s.stats.hits.Add(hits)
	c.s.stats.misses.Add(int64(len(ds)) - hits)
	return nil
}
