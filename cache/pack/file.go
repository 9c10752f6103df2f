package pack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
)

// A large blob's file is a row of frames, each the content of frameSize bytes of the blob (the last one fewer), followed
// by a table with two u32 a frame, its length (the highest bit set if it is stored as it is, unset if it is a zstd
// frame) and its CRC-32C, and by a footer:
//
//	 0  "PXF1"
//	 4  u32   CRC-32C of the table and of the rest of the footer
//	 8  u64   size of the blob
//	16  u8    digest function, 7 zero bytes
//	24  [32]  hash
//
// A frame is one zstd block at most, so whoever reads compressed gets the frames as they are (those stored uncompressed
// in a zstd frame's few bytes around a raw block), and whoever reads from the middle decompresses one frame more than
// he asked for.
const (
	frameSize   = 128 << 10
	footerSize  = 56
	footerMagic = "PXF1"
	rawFrame    = 1 << 31
)

// buffers holds what a frame, compressed or not, fits in.
var buffers = sync.Pool{New: func() any { b := make([]byte, frameSize, frameSize+1024); return &b }}

// encoder and decoder are stateless in the calls made here, and safe for concurrent use.
var (
	encoder, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	decoder, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(frameSize), zstd.IgnoreChecksum(true))
)

func (s *Store) filePath(id uint64) string {
	return filepath.Join(s.dir, "files", fmt.Sprintf("%02x", byte(id)), strconv.FormatUint(id, 16))
}

// writeFile stores a large blob in the file of the given id, durably but for the name of the directory that it is in, and
// returns the file's length. The bytes are verified.
func (s *Store) writeFile(ctx context.Context, id uint64, d digest.Digest, r io.Reader) (stored int64, err error) {
	path := s.filePath(id)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	frames := (d.Size() + frameSize - 1) / frameSize
	w := fileWriter{s: s, id: id, f: f, most: d.Size() + 8*frames + footerSize + fileUnit}
	if err := w.frames(ctx, digest.NewReader(io.NopCloser(r), d)); err != nil {
		return 0, err
	}
	if err := w.finish(d); err != nil {
		return 0, err
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return 0, err
	}
	return w.written, durable.SyncDir(filepath.Dir(path))
}

type fileWriter struct {
	s       *Store
	id      uint64
	f       *os.File
	written int64
	most    int64 // what it takes up if nothing of it compresses
	held    int64 // what is held for it; see Store.hold
	table   []byte
	skip    int // frames to store as they are before compression is tried again
	futile  int // tries in a row that gained nothing
}

func (w *fileWriter) frames(ctx context.Context, r io.Reader) error {
	plain, packed := buffers.Get().(*[]byte), buffers.Get().(*[]byte)
	defer buffers.Put(plain)
	defer buffers.Put(packed)
	for {
		n, err := readFrame(r, (*plain)[:frameSize])
		if err != nil && err != io.EOF {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if n > 0 {
			if err := w.frame((*plain)[:n], packed); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readFrame fills p. It ends early with io.EOF, or with r's own error, whichever that is: io.ReadFull would not tell a
// source that ends from one that failed because its own source ended.
func readFrame(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// frame stores one frame, compressed if that makes it half as large or smaller: for less, what compressing and, at each
// read, decompressing cost is not worth the room on a local disk. What does not compress is not tried again and again:
// most large blobs are archives.
func (w *fileWriter) frame(b []byte, packed *[]byte) error {
	length := uint32(len(b)) | rawFrame
	if w.skip > 0 {
		w.skip--
	} else {
		*packed = encoder.EncodeAll(b, (*packed)[:0])
		if len(*packed) <= len(b)/2 {
			b, length, w.futile = *packed, uint32(len(*packed)), 0
		} else {
			w.futile = min(w.futile+1, 5)
			w.skip = 1<<w.futile - 1
		}
	}
	w.table = binary.LittleEndian.AppendUint32(w.table, length)
	w.table = binary.LittleEndian.AppendUint32(w.table, crc32.Checksum(b, castagnoli))
	err := w.write(b)
	*packed = (*packed)[:cap(*packed)]
	return err
}

// write appends to the file, for which room is made first.
func (w *fileWriter) write(b []byte) error {
	if need := w.written + int64(len(b)); need > w.held {
		w.held = min(need+holdAhead, max(need, w.most))
		if err := w.s.hold(w.id, w.held); err != nil {
			return err
		}
	}
	n, err := w.f.Write(b)
	w.written += int64(n)
	return err
}

func (w *fileWriter) finish(d digest.Digest) error {
	footer := make([]byte, footerSize)
	copy(footer, footerMagic)
	binary.LittleEndian.PutUint64(footer[8:], uint64(d.Size()))
	footer[16] = byte(d.Function())
	sum := d.Sum()
	copy(footer[24:], sum[:])
	crc := crc32.Update(crc32.Checksum(w.table, castagnoli), castagnoli, footer[8:])
	binary.LittleEndian.PutUint32(footer[4:], crc)
	return w.write(append(w.table, footer...))
}

// file is a large blob's file, open for reading.
type file struct {
	f     *os.File
	size  int64
	table []byte
}

// openFile opens the file of d and checks that it is d's.
func (s *Store) openFile(id uint64, d digest.Digest) (*file, error) {
	f, err := os.Open(s.filePath(id))
	if err != nil {
		return nil, err
	}
	o := &file{f: f, size: d.Size()}
	if err := o.readTable(d); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return o, nil
}

func (o *file) readTable(d digest.Digest) error {
	st, err := o.f.Stat()
	if err != nil {
		return err
	}
	frames := (d.Size() + frameSize - 1) / frameSize
	at := st.Size() - footerSize - 8*frames
	if at < 0 {
		return fmt.Errorf("%w: %s: the file is too short", errRecord, o.f.Name())
	}
	b := make([]byte, 8*frames+footerSize)
	if _, err := o.f.ReadAt(b, at); err != nil {
		return err
	}
	table, footer := b[:8*frames], b[8*frames:]
	sum := d.Sum()
	switch {
	case string(footer[:4]) != footerMagic,
		binary.LittleEndian.Uint32(footer[4:]) != crc32.Update(crc32.Checksum(table, castagnoli), castagnoli, footer[8:]):
		return fmt.Errorf("%w: %s: the footer is damaged", errRecord, o.f.Name())
	case int64(binary.LittleEndian.Uint64(footer[8:])) != d.Size(), footer[16] != byte(d.Function()), string(footer[24:]) != string(sum[:]):
		return fmt.Errorf("%w: %s: the file is another blob's", errRecord, o.f.Name())
	}
	o.table = table
	return nil
}

// plainLength is how much of the blob is in frame i.
func (o *file) plainLength(i int64) int64 { return min(frameSize, o.size-i*frameSize) }

// stored reads frame i, at offset, as it is in the file, and says whether it is uncompressed.
func (o *file) stored(i, offset int64, buf []byte) ([]byte, bool, error) {
	length, crc := binary.LittleEndian.Uint32(o.table[8*i:]), binary.LittleEndian.Uint32(o.table[8*i+4:])
	raw := length&rawFrame != 0
	if length &^= rawFrame; int64(length) > o.plainLength(i) || int(length) > cap(buf) {
		return nil, false, fmt.Errorf("%w: %s: frame %d has a wrong length", errRecord, o.f.Name(), i)
	}
	b := buf[:length]
	if _, err := o.f.ReadAt(b, offset); err != nil {
		return nil, false, err
	}
	if crc32.Checksum(b, castagnoli) != crc {
		return nil, false, fmt.Errorf("%w: %s: frame %d has a wrong checksum", errRecord, o.f.Name(), i)
	}
	return b, raw, nil
}

// offset is where frame i begins.
func (o *file) offset(i int64) int64 {
	at := int64(0)
	for j := range i {
		at += int64(binary.LittleEndian.Uint32(o.table[8*j:]) &^ rawFrame)
	}
	return at
}

// fileDigest returns the digest that a large blob's file says it is, which must fit its entry.
func (s *Store) fileDigest(at located) (digest.Digest, error) {
	var sum [digest.Size]byte
	copy(sum[:], at.key[:])
	d := digest.Function(at.class&classFunction).FromSum(sum, at.size())
	f, err := os.Open(s.filePath(at.loc))
	if err != nil {
		return d, s.damaged(at, d, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return d, err
	}
	footer := make([]byte, footerSize)
	if _, err := f.ReadAt(footer, max(0, st.Size()-footerSize)); err != nil || string(footer[24:24+len(at.key)]) != string(at.key[:]) {
		return d, s.damaged(at, d, fmt.Errorf("%w: %s: no footer of this blob (%v)", errRecord, f.Name(), err))
	}
	return d.Function().FromSum([digest.Size]byte(footer[24:]), at.size()), nil
}

// readThrough reads a large blob to its end and hashes it.
func (s *Store) readThrough(at located, d digest.Digest) error {
	o, err := s.openFile(at.loc, d)
	if err != nil {
		return s.damaged(at, d, err)
	}
	r, err := newFileReader(s, at, d, o, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, digest.NewReader(r, d)); errors.Is(err, digest.ErrMismatch) {
		return s.damaged(at, d, fmt.Errorf("%w: wrong content", errRecord))
	} else if err != nil {
		return err
	}
	return nil
}
