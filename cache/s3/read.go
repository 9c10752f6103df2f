package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pexpress/pexpress/cache/digest"
)

// record is what is to be read: a blob, and where its record is.
type record struct {
	found
	namespace string
	digest    digest.Digest
}

func (r *record) header() header {
	return header{kind: kindBlob, namespace: r.namespace, digest: r.digest, payload: r.digest.Size()}
}

// check compares the record's header with what was looked for: the index knows an entry by half of its hash.
func (r *record) check(b []byte) (n int, err error) {
	h, n, err := parseHeader(b)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", digest.ErrMismatch, err)
	}
	if h != r.header() {
		return 0, fmt.Errorf("%w: the record in pack %s at %d is of %s %s", digest.ErrMismatch, r.pack, r.offset, h.kind, h.digest)
	}
	return n, nil
}

// open returns the blob from offset on. Bytes that are wrong twice are set aside: the blob reads as missing then, so that
// it is uploaded again.
func (s *Store) open(ctx context.Context, r record, offset int64) (io.ReadCloser, error) {
	if r.digest.Size() > maxSmall {
		return s.openLarge(ctx, r, offset)
	}
	b, err := s.readSmall(ctx, r)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b[offset:])), nil
}

// readSmall returns a whole blob, verified.
func (s *Store) readSmall(ctx context.Context, r record) ([]byte, error) {
	h := r.header()
	var err error
	for range tries {
		var b []byte
		if b, err = s.readRange(ctx, r.pack, int64(r.offset), h.recordLen()); err != nil {
			if errors.Is(err, ErrNoObject) {
				return nil, err
			}
			if errors.Is(err, errRequest) {
				break
			}
			continue
		}
		if b, err = r.payload(b); err == nil {
			return b, nil
		}
	}
	return nil, s.failed(r, err)
}

// payload takes the blob out of its record.
func (r *record) payload(b []byte) ([]byte, error) {
	n, err := r.check(b)
	if err != nil {
		return nil, err
	}
	p, err := parsePayload(b[n:], r.digest.Size())
	if err != nil {
		return nil, err
	}
	if got := r.digest.Function().FromBytes(p); got != r.digest {
		return nil, fmt.Errorf("%w: got %s", digest.ErrMismatch, got)
	}
	return p, nil
}

// errDamaged marks the errors of records that were set aside.
var errDamaged = errors.New("is damaged and set aside")

// failed names the blob in an error, and sets its record aside if its bytes were wrong.
func (s *Store) failed(r record, err error) error {
	if errors.Is(err, errDamaged) {
		return err
	}
	if errors.Is(err, digest.ErrMismatch) {
		s.index.setAside(r.found)
		s.count.aside.Add(1)
		return fmt.Errorf("blob %s in pack %s %w: put it again: %w", r.digest, r.pack, errDamaged, err)
	}
	return fmt.Errorf("read blob %s from pack %s: %w", r.digest, r.pack, err)
}

// errRequest marks failures that the bucket has already tried to get over.
var errRequest = errors.New("the request failed")

// readRange reads n bytes of a pack into memory.
func (s *Store) readRange(ctx context.Context, p id, offset, n int64) ([]byte, error) {
	o, err := s.getPack(ctx, p, GetOptions{Offset: offset, Length: n})
	if err != nil {
		return nil, err
	}
	defer o.Body.Close()
	b := make([]byte, n)
	if err := readFull(o.Body, b); err != nil {
		return nil, fmt.Errorf("read %d bytes of pack %s: %w", n, p, err)
	}
	return b, nil
}

// getPack asks for a part of a pack. That the pack ends before it is damage and no failure.
func (s *Store) getPack(ctx context.Context, p id, o GetOptions) (*Object, error) {
	obj, err := s.bucket.Get(ctx, packDir+p.String(), o)
	switch {
	case errors.Is(err, ErrShort):
		return nil, fmt.Errorf("%w: %w", digest.ErrMismatch, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	return obj, nil
}

// readFull fills b. A stream that says that it is at its end before b is full is a damaged object, which is set aside; a
// connection that broke has an error of its own.
func readFull(r io.Reader, b []byte) error {
	for len(b) > 0 {
		n, err := r.Read(b)
		b = b[n:]
		switch {
		case len(b) == 0:
		case err == io.EOF:
			return fmt.Errorf("%w: the object lacks %d bytes", digest.ErrMismatch, len(b))
		case err != nil:
			return err
		}
	}
	return nil
}

// openLarge streams a blob. Each block is checked before it is handed on, and where the connection breaks or a block is
// wrong, reading goes on from the start of that block with a new request.
func (s *Store) openLarge(ctx context.Context, r record, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	first := offset / blockSize * blockSize
	br := &blockReader{ctx: ctx, cancel: cancel, s: s, r: r, at: first}
	if err := br.connect(first == 0); err != nil {
		br.Close()
		if errors.Is(err, ErrNoObject) {
			return nil, err
		}
		return nil, s.failed(r, err)
	}
	if offset == 0 {
		return &wholeReader{digest.NewReader(br, r.digest), s, r}, nil
	}
	if _, err := io.CopyN(io.Discard, br, offset-first); err != nil && offset < r.digest.Size() {
		br.Close()
		return nil, err
	}
	return br, nil
}

// wholeReader sets a record aside whose blocks are right and whose digest is not.
type wholeReader struct {
	io.ReadCloser
	s *Store
	r record
}

func (w *wholeReader) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && err != io.EOF && errors.Is(err, digest.ErrMismatch) {
		err = w.s.failed(w.r, err)
	}
	return n, err
}

// blockReader reads a payload block by block.
type blockReader struct {
	ctx    context.Context //nolint:containedctx // of the one read that it is
	cancel context.CancelFunc
	s      *Store
	r      record
	at     int64 // in the payload: where the next block begins
	body   io.ReadCloser
	buf    [blockSize + sumLen]byte
	data   []byte // of the last block, not handed on yet
	err    error
}

// connect opens the pack at b.at, and checks the record's header if that is on the way.
func (b *blockReader) connect(head bool) (err error) {
	for range tries {
		if err = b.connectOnce(head); err == nil || errors.Is(err, errRequest) {
			return err
		}
	}
	return err
}

func (b *blockReader) connectOnce(head bool) error {
	h := b.r.header()
	n := headerLen(h.namespace)
	o := GetOptions{Offset: int64(b.r.offset) + n + blocksLen(b.at), Length: blocksLen(h.payload) - blocksLen(b.at)}
	if head {
		o = GetOptions{Offset: int64(b.r.offset), Length: h.recordLen()}
	}
	if o.Length == 0 {
		b.body = io.NopCloser(bytes.NewReader(nil))
		return nil
	}
	obj, err := b.s.getPack(b.ctx, b.r.pack, o)
	if err != nil {
		return err
	}
	b.body = obj.Body
	if !head {
		return nil
	}
	buf := make([]byte, n)
	if err = readFull(b.body, buf); err == nil {
		_, err = b.r.check(buf)
	}
	if err != nil {
		b.body.Close()
		b.body = nil
	}
	return err
}

// Read implements io.Reader.
func (b *blockReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(b.data) == 0 {
		if b.err == nil {
			b.err = b.next()
		}
		if b.err != nil {
			return 0, b.err
		}
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

func (b *blockReader) next() error {
	size := min(b.r.digest.Size()-b.at, blockSize)
	if size == 0 {
		return io.EOF
	}
	var err error
	for range tries {
		if b.body == nil {
			if err = b.connect(false); err != nil {
				break
			}
		}
		if err = readFull(b.body, b.buf[:size+sumLen]); err == nil {
			b.data, err = checkBlock(b.buf[:size+sumLen])
		}
		if err == nil {
			b.at += size
			return nil
		}
		b.body.Close()
		b.body = nil
		if b.ctx.Err() != nil {
			return b.ctx.Err()
		}
	}
	return b.s.failed(b.r, err)
}

// Close implements io.Closer.
func (b *blockReader) Close() error {
	defer b.cancel()
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}
