package s3

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache/digest"
)

const (
	// partSize is what a large blob is sent in: parts are tried again one by one.
	partSize = 8 << 20
	// maxParts is one of S3's limits. Blobs of more than 72 GiB get larger parts.
	maxParts = 9000
	// partsAtOnce of one blob are on the wire.
	partsAtOnce = 2
	// partMemory bounds the parts of all blobs in memory.
	partMemory = 256 << 20
	// maxBlob is what has no larger parts than there is memory for them. Clients name the size long before they send a byte.
	maxBlob = maxParts * partMemory
)

// putLarge stores a blob in a pack of its own, and sends its first byte long before the last one has come. The object
// becomes visible, and the tail is written, only after the digest was right.
func (s *Store) putLarge(ctx context.Context, h header, r io.Reader) error {
	if err := s.probeCommit(ctx); err != nil {
		return err
	}
	began := s.now()
	p := packRef{id: newID(), size: h.recordLen()}
	src := &recordReader{r: digest.NewReader(io.NopCloser(r), h.digest), head: appendHeader(nil, &h), left: h.payload}
	var err error
	if p.size <= partSize {
		p.date, err = s.putWhole(ctx, p, src)
	} else {
		p.date, err = s.putParts(ctx, p, src)
	}
	if err != nil {
		return err
	}
	return s.writeTail(ctx, p, []committed{{header: h}}, began)
}

func (s *Store) putWhole(ctx context.Context, p packRef, src *recordReader) (date int64, err error) {
	if err := s.parts.Acquire(ctx, p.size); err != nil {
		return 0, err
	}
	defer s.parts.Release(p.size)
	b, err := src.fill(make([]byte, 0, p.size), p.size)
	if err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	meta, err := s.bucket.Put(ctx, packDir+p.id.String(), b)
	return meta.Date.Unix(), err
}

func (s *Store) putParts(ctx context.Context, p packRef, src *recordReader) (date int64, err error) {
	up, err := s.bucket.Upload(ctx, packDir+p.id.String())
	if err != nil {
		return 0, err
	}
	if err = s.sendParts(ctx, up, p.size, src); err == nil {
		err = ctx.Err()
	}
	if err == nil {
		_, err = up.Complete(ctx)
	}
	if err != nil {
		// The upload's parts cost money until they are thrown away. If this fails, gc does it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		_ = up.Abort(ctx)
		return 0, err
	}
	return up.Date().Unix(), nil
}

// sendParts reads src once. A part takes memory from when it is read until it is sent.
func (s *Store) sendParts(ctx context.Context, up Upload, size int64, src *recordReader) error {
	length := max(partSize, (size/maxParts+1<<20)>>20<<20)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	fill := func(n int) error {
		cost := min(length, partMemory)
		if err := s.parts.Acquire(gctx, cost); err != nil {
			return err
		}
		part, err := src.fill(make([]byte, 0, min(length, size)), min(length, size))
		if err != nil {
			s.parts.Release(cost)
			return err
		}
		g.Go(func() error {
			defer s.parts.Release(cost)
			return up.Part(gctx, n, part)
		})
		return nil
	}
	var err error
	for n := 1; size > 0 && err == nil; n++ {
		err = fill(n)
		size -= length
	}
	if sent := g.Wait(); sent != nil && (err == nil || ctx.Err() == nil && gctx.Err() != nil && err == gctx.Err()) {
		return sent
	}
	return err
}

// recordReader makes a record of a stream: the header, then the blocks with their checksums.
type recordReader struct {
	r    io.Reader // verifies
	head []byte    // to be handed out before what is read next: the header, then the rest of a block
	left int64     // of the payload
	buf  [blockSize + sumLen]byte
}

// fill appends n bytes of the record to b. With the record's last byte it has seen the stream's end.
func (r *recordReader) fill(b []byte, n int64) ([]byte, error) {
	for n > 0 {
		if len(r.head) == 0 {
			if err := r.block(); err != nil {
				return nil, err
			}
		}
		k := min(n, int64(len(r.head)))
		b = append(b, r.head[:k]...)
		r.head = r.head[k:]
		n -= k
	}
	if r.left == 0 && len(r.head) == 0 {
		return b, r.end()
	}
	return b, nil
}

func (r *recordReader) block() error {
	k := min(r.left, blockSize)
	if _, err := io.ReadFull(r.r, r.buf[:k]); err != nil {
		return err // the verifying reader never ends early; an unexpected EOF is its source's own failure
	}
	binary.LittleEndian.PutUint32(r.buf[k:], crc32.Checksum(r.buf[:k], castagnoli))
	r.head, r.left = r.buf[:k+sumLen], r.left-k
	return nil
}

func (r *recordReader) end() error {
	var one [1]byte
	if _, err := r.r.Read(one[:]); err != io.EOF {
		return err // the verifying reader says what is wrong
	}
	return nil
}
