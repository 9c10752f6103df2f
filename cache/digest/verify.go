package digest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// ErrMismatch is wrapped by every error that says that bytes are not those their digest names.
var ErrMismatch = errors.New("content does not match its digest")

// Hasher computes a digest from what is written to it.
type Hasher struct {
	h    hash.Hash
	size int64
	fn   Function
}

// NewHasher returns a Hasher of the empty blob, for sha256.
func NewHasher() *Hasher { return SHA256.NewHasher() }

// Write implements io.Writer; it never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	n, err := h.h.Write(p)
	h.size += int64(n)
	return n, err
}

// Digest returns the digest of the bytes written so far.
func (h *Hasher) Digest() Digest {
	d := Digest{size: h.size, fn: h.fn}
	h.h.Sum(d.hash[:0])
	return d
}

// FromReader returns the digest of everything r yields.
func FromReader(r io.Reader) (Digest, error) {
	h := NewHasher()
	if _, err := io.Copy(h, r); err != nil {
		return Digest{}, err
	}
	return h.Digest(), nil
}

// NewReader returns a reader of rc's bytes that fails with ErrMismatch, in place of io.EOF, unless they are exactly
// those that d names. It never yields more than d.Size() bytes, so a reader that stops at an error has read no more
// than was declared.
func NewReader(rc io.ReadCloser, d Digest) io.ReadCloser {
	return &verifyReader{rc: rc, want: d, h: d.fn.NewHasher()}
}

type verifyReader struct {
	rc   io.ReadCloser
	want Digest
	h    *Hasher
	err  error
}

func (v *verifyReader) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	left := v.want.size - v.h.size
	if left == 0 {
		v.err = v.finish()
		return 0, v.err
	}
	if int64(len(p)) > left {
		p = p[:left]
	}
	n, err := v.rc.Read(p)
	v.h.Write(p[:n])
	if err == io.EOF {
		if v.h.size == v.want.size {
			err = v.finish()
		} else {
			err = fmt.Errorf("%w: %s ends after %d bytes", ErrMismatch, v.want, v.h.size)
		}
	}
	v.err = err
	return n, err
}

// finish checks that the source has ended and that the hash is right; io.EOF means both.
func (v *verifyReader) finish() error {
	var one [1]byte
	switch n, err := io.ReadFull(v.rc, one[:]); {
	case n > 0:
		return fmt.Errorf("%w: %s is followed by more bytes", ErrMismatch, v.want)
	case err != io.EOF:
		return err
	}
	if got := v.h.Digest(); got != v.want {
		return fmt.Errorf("%w: want %s, got %s %s", ErrMismatch, v.want, v.want.fn, hex.EncodeToString(got.hash[:]))
	}
	return io.EOF
}

func (v *verifyReader) Close() error { return v.rc.Close() }
