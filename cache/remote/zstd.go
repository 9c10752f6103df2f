package remote

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/pexpress/pexpress/cache/digest"
)

// maxWindow bounds the memory that decompressing takes, whatever a server sends.
const maxWindow = 64 << 20

// inflate returns a reader of what rc's frames hold; closing it closes rc.
func inflate(rc io.ReadCloser) (io.ReadCloser, error) {
	dec, err := zstd.NewReader(rc, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		return nil, err
	}
	return &inflated{dec, rc}, nil
}

type inflated struct {
	*zstd.Decoder
	src io.Closer
}

func (i *inflated) Close() error {
	err := i.src.Close()
	i.Decoder.Close()
	return err
}

// inflateAll returns the blob d, of which no more is held than d declares.
func inflateAll(frames []byte, d digest.Digest) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	data, err := dec.DecodeAll(frames, make([]byte, 0, d.Size()))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	return data, nil
}

func deflateAll(data []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return data
	}
	return enc.EncodeAll(data, make([]byte, 0, len(data)))
}

// deflate writes r to w as one frame.
func deflate(w io.Writer, r io.Reader) error {
	enc, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if _, err := enc.ReadFrom(r); err != nil {
		return err
	}
	return enc.Close()
}
