package server

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/pexpress/pexpress/cache/digest"
)

// errFrame is wrapped by the error for bytes that are not the zstd frames they should be.
var errFrame = errors.New("malformed zstd data")

const (
	// maxWindow bounds the memory that one stream's decoder takes: what zstd's own levels up to 19 and the common
	// libraries' defaults ask for is 8 MiB at most.
	maxWindow = 16 << 20
	// encoderMemory is about what one stream's encoder takes.
	encoderMemory = 4 << 20
	// worthwhile is the size from which on compressing can pay at all: a frame has some bytes of its own.
	worthwhile = 128
)

// codec compresses and decompresses. What it keeps for reuse is dropped by the garbage collector when it is not needed.
type codec struct {
	whole   func() (*zstd.Encoder, *zstd.Decoder)
	readers sync.Pool
	writers sync.Pool
}

func newCodec() *codec {
	return &codec{whole: sync.OnceValues(func() (*zstd.Encoder, *zstd.Decoder) {
		// A Decoder that is limited to the capacity it is handed never writes more than that, whatever a frame declares.
		d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(0))
		e, err2 := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err = errors.Join(err, err2); err != nil {
			panic(err) // options that are constant
		}
		return e, d
	})}
}

// helps guesses whether to try compressing.
func (c *codec) helps(data []byte) bool { return len(data) >= worthwhile }

// deflate returns data as a zstd frame.
func (c *codec) deflate(data []byte) []byte {
	e, _ := c.whole()
	return e.EncodeAll(data, make([]byte, 0, len(data)))
}

// inflate returns the blob d from its zstd frames. It allocates what d declares and no more.
func (c *codec) inflate(frames []byte, d digest.Digest) ([]byte, error) {
	_, dec := c.whole()
	data, err := dec.DecodeAll(frames, make([]byte, 0, d.Size()))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w: %w", d, errFrame, err)
	}
	return data, nil
}

// reader returns a reader of what src's frames hold. It is closed when no longer used. Whoever calls it has taken
// maxWindow from the budget.
func (c *codec) reader(src io.Reader) (*inflater, error) {
	dec, ok := c.readers.Get().(*zstd.Decoder)
	if !ok {
		var err error
		dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeBuffersBelow(0))
		if err != nil {
			return nil, err
		}
	}
	in := &source{r: src}
	if err := dec.Reset(in); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return &inflater{codec: c, dec: dec, src: in}, nil
}

// source remembers how reading the compressed bytes failed.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

type inflater struct {
	codec *codec
	dec   *zstd.Decoder
	src   *source
}

func (i *inflater) Read(p []byte) (int, error) {
	n, err := i.dec.Read(p)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case i.src.err != nil:
		return n, i.src.err
	}
	return n, fmt.Errorf("%w: %v", errFrame, err) // not wrapped: an unexpected EOF of the decoder's is none of the reader's
}

// Close gives the decoder back.
func (i *inflater) Close() error {
	if err := i.dec.Reset(nil); err == nil {
		i.codec.readers.Put(i.dec)
	}
	i.dec = nil
	return nil
}

// compress writes r to w as one zstd frame. Whoever calls it has taken encoderMemory from the budget.
func (c *codec) compress(w io.Writer, r io.Reader) error {
	enc, ok := c.writers.Get().(*zstd.Encoder)
	if !ok {
		var err error
		enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return err
		}
	}
	enc.Reset(w)
	_, err := enc.ReadFrom(r)
	if err == nil {
		err = enc.Close()
	}
	enc.Reset(nil)
	c.writers.Put(enc)
	return err
}
