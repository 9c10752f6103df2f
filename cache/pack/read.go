package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pexpress/pexpress/cache/digest"
)

// readRecord reads the record at offset, whose payload has the given length, in one call. The payload is in buf if that
// is large enough.
func readRecord(f *os.File, offset, length int64, buf []byte) (record, []byte, error) {
	if n := headerSize + length; int64(cap(buf)) < n {
		buf = make([]byte, n)
	} else {
		buf = buf[:n]
	}
	if _, err := f.ReadAt(buf, offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: it ends too early", errRecord)
		}
		return record{}, nil, err
	}
	r, err := parseRecord(buf)
	if err != nil {
		return record{}, nil, err
	}
	payload := buf[headerSize:]
	return r, payload, r.checkPayload(payload)
}

// fileReader reads a large blob's bytes, from a frame on.
type fileReader struct {
	s     *Store
	at    located
	d     digest.Digest
	o     *file
	frame int64
	next  int64   // where the frame begins in the file
	left  []byte  // of the frame before, not yet handed on
	plain *[]byte // holds left
	err   error
}

// newFileReader reads from an offset in the blob on.
func newFileReader(s *Store, at located, d digest.Digest, o *file, offset int64) (*fileReader, error) {
	r := &fileReader{s: s, at: at, d: d, o: o, frame: offset / frameSize}
	r.next = o.offset(r.frame)
	if skip := offset % frameSize; skip > 0 {
		b, err := r.decode(nil)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.left = b[skip:]
	}
	return r, nil
}

// decode returns the next frame's content, in p if it is large enough.
func (r *fileReader) decode(p []byte) ([]byte, error) {
	if r.frame*frameSize >= r.o.size {
		return nil, io.EOF
	}
	i, n := r.frame, r.o.plainLength(r.frame)
	into := p
	if int64(len(p)) < n {
		if r.plain == nil {
			r.plain = buffers.Get().(*[]byte)
		}
		into = *r.plain
	}
	raw := binary.LittleEndian.Uint32(r.o.table[8*i:])&rawFrame != 0
	var b []byte
	var err error
	if raw {
		b, _, err = r.o.stored(i, r.next, into[:0:len(into)])
	} else {
		b, err = r.decompress(i, into)
	}
	if err == nil && int64(len(b)) != n {
		err = fmt.Errorf("%w: %s: frame %d has %d bytes, not %d", errRecord, r.o.f.Name(), i, len(b), n)
	}
	if err != nil {
		return nil, r.s.damaged(r.at, r.d, err)
	}
	r.frame++
	r.next += int64(binary.LittleEndian.Uint32(r.o.table[8*i:]) &^ rawFrame)
	return b, nil
}

func (r *fileReader) decompress(i int64, into []byte) ([]byte, error) {
	packed := buffers.Get().(*[]byte)
	defer buffers.Put(packed)
	b, _, err := r.o.stored(i, r.next, (*packed)[:0])
	if err != nil {
		return nil, err
	}
	return decoder.DecodeAll(b, into[:0:len(into)])
}

func (r *fileReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.left) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		b, err := r.decode(p)
		if err != nil {
			r.err = err
			return 0, err
		}
		if &b[0] == &p[0] {
			return len(b), nil
		}
		r.left = b
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

func (r *fileReader) Close() error {
	if r.plain != nil {
		buffers.Put(r.plain)
		r.plain, r.left = nil, nil
	}
	r.err = os.ErrClosed
	return r.o.f.Close()
}

// zstdReader reads a large blob's frames as zstd frames.
type zstdReader struct {
	*fileReader
	packed *[]byte
	err    error
}

// rawHead is the beginning of a zstd frame with one raw block: magic, descriptor (one segment, four bytes of content
// size), content size, block header (RFC 8878, sections 3.1.1 and 3.1.1.2).
func rawHead(n int) []byte {
	h := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0}
	binary.LittleEndian.PutUint32(h[5:], uint32(n))
	block := uint32(n)<<3 | 1 // the last block
	return append(h, byte(block), byte(block>>8), byte(block>>16))
}

func (z *zstdReader) Read(p []byte) (int, error) {
	for len(z.left) == 0 {
		if z.err != nil {
			return 0, z.err
		}
		if z.err = z.fill(); z.err != nil {
			return 0, z.err
		}
	}
	n := copy(p, z.left)
	z.left = z.left[n:]
	return n, nil
}

// fill reads the next frame.
func (z *zstdReader) fill() error {
	if z.frame*frameSize >= z.o.size {
		return io.EOF
	}
	if z.packed == nil {
		z.packed = buffers.Get().(*[]byte)
	}
	const room = 16 // for rawHead
	buf := (*z.packed)[:cap(*z.packed)]
	b, raw, err := z.o.stored(z.frame, z.next, buf[room:room])
	if err != nil {
		return z.s.damaged(z.at, z.d, err)
	}
	z.frame++
	z.next += int64(len(b))
	z.left = b
	if raw {
		head := rawHead(len(b))
		copy(buf[room-len(head):], head)
		z.left = buf[room-len(head) : room+len(b)]
	}
	return nil
}

func (z *zstdReader) Close() error {
	if z.packed != nil {
		buffers.Put(z.packed)
		z.packed = nil
	}
	z.err = os.ErrClosed
	return z.fileReader.Close()
}
