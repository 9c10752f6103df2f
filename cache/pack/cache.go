package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Cache is one namespace of a store: what is in one is not in another, whatever its digest.
type Cache struct {
	s  *Store
	ns uint16
}

var (
	_ cache.CAS         = (*Cache)(nil)
	_ cache.ActionCache = (*Cache)(nil)
	_ cache.BatchPutter = (*Cache)(nil)
	_ cache.BatchGetter = (*Cache)(nil)
	_ cache.RangeGetter = (*Cache)(nil)
	_ cache.ZstdGetter  = (*Cache)(nil)
)

// Namespace returns the namespace of that name, a new one if need be.
func (s *Store) Namespace(name string) (*Cache, error) {
	ns, err := s.number(name)
	if err != nil {
		return nil, err
	}
	return &Cache{s, ns}, nil
}

// Bytes returns the size of what the namespace holds, each blob counted by its own size.
func (c *Cache) Bytes() int64 {
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	return c.s.bytes[c.ns]
}

// smallBlob is the size up to which a blob is a record in a segment.
const smallBlob = 256 << 10

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
	s.stats.damaged.Add(1)
	r := at.ref()
	s.mu.RLock()
	e := s.table.find(&r)
	same := e != nil && e.loc == at.loc
	s.mu.RUnlock()
	if same {
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
	// Room is made when the file is committed; an upload that cannot fit at all is not begun.
	if d.Size() > c.s.opts.MaxBytes {
		return fmt.Errorf("put blob %s: %w", d, c.s.noRoom())
	}
	id, stored, err := c.s.writeFile(ctx, d, r)
	if err != nil {
		return fmt.Errorf("put blob %s: %w", d, full(err))
	}
	ch := &chunk{}
	payload := binary.LittleEndian.AppendUint64(nil, id)
	payload = binary.LittleEndian.AppendUint64(payload, uint64(stored))
	ch.add(record{kind: kindFile, ns: c.ns, digest: d, time: c.s.seconds()}, payload)
	if err := c.s.commit(ch); err != nil {
		return fmt.Errorf("put blob %s: %w", d, errors.Join(err, removeFile(c.s, id)))
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
	if err := c.s.commit(ch); err != nil {
		return fmt.Errorf("put blob %s and %d others: %w", what, len(blobs)-1, err)
	}
	return nil
}

// has reports whether a blob need not be stored again. With a promise to keep, one whose last use is long ago is stored
// anew, which records the use as well; else it might be evicted before the caller names it.
func (c *Cache) has(d digest.Digest) bool {
	if d.IsEmpty() {
		return true
	}
	r := refOf(d, c.ns, 0)
	at, ok := c.s.locate(&r)
	return ok && at.size() == d.Size() && !c.s.stale(&at.entry, c.s.seconds())
}

// stale reports whether a use has to be recorded before the entry may be called present.
func (s *Store) stale(e *entry, now uint32) bool {
	half := uint32(s.opts.Retention / time.Second / 2)
	return half > 0 && e.touched()+half < now
}

// FindMissing implements cache.CAS. With Options.Retention, what it finds it promises.
func (c *Cache) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var missing []digest.Digest
	touch := &chunk{}
	var touched []digest.Digest
	now := c.s.seconds()
	const stride = 2048 // looked up under one lock
	for from := 0; from < len(ds); from += stride {
		c.s.mu.RLock()
		for i := from; i < min(from+stride, len(ds)); i++ {
			r := refOf(ds[i], c.ns, 0)
			e := c.s.table.find(&r)
			switch {
			case e != nil && e.size() == ds[i].Size():
				if c.s.opts.Retention == 0 {
					if e.touched() != now {
						atomic.StoreUint32(&e.touch, now)
					}
				} else if c.s.stale(e, now) {
					touch.add(record{kind: kindTouch, ns: c.ns, digest: ds[i], time: now})
					touched = append(touched, ds[i])
				}
			case ds[i].IsZero():
				c.s.mu.RUnlock()
				return nil, fmt.Errorf("find missing blobs: %w: no digest given", digest.ErrInvalid)
			case !ds[i].IsEmpty():
				missing = append(missing, ds[i])
			}
		}
		c.s.mu.RUnlock()
	}
	if len(touched) > 0 {
		if err := c.s.commit(touch); err != nil {
			return nil, fmt.Errorf("find missing blobs: record their use: %w", err)
		}
		for _, d := range touched { // evicted before the touch was recorded?
			if !c.has(d) {
				missing = append(missing, d)
			}
		}
	}
	return unique(missing), nil
}

// unique removes what stands there before.
func unique(ds []digest.Digest) []digest.Digest {
	if len(ds) < 2 {
		return ds
	}
	seen := make(map[digest.Digest]struct{}, len(ds))
	n := 0
	for _, d := range ds {
		if _, ok := seen[d]; !ok {
			seen[d] = struct{}{}
			ds[n] = d
			n++
		}
	}
	return ds[:n]
}
