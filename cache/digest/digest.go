// Package digest names a blob by what it contains: a REAPI digest function, the hash of the bytes and their number.
//
// A Digest is a small comparable value. It can be made only from bytes or by one of the parsers here, so that a
// Digest in hand is always well formed. See the Remote Execution API, message Digest.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"
)

// ErrInvalid is wrapped by every error of a parser in this package.
var ErrInvalid = errors.New("invalid digest")

// Digest is the name of a blob. The zero value names nothing; see [Digest.IsZero].
type Digest struct {
	hash [sha256.Size]byte
	size int64
	set  bool
}

// Empty is the digest of the empty blob, which REAPI says exists everywhere.
var Empty = FromBytes(nil)

// FromBytes returns the digest of b.
func FromBytes(b []byte) Digest {
	return Digest{hash: sha256.Sum256(b), size: int64(len(b)), set: true}
}

// FromProto returns the digest of a REAPI message after checking it.
func FromProto(p *repb.Digest) (Digest, error) {
	if p == nil {
		return Digest{}, fmt.Errorf("%w: no digest given", ErrInvalid)
	}
	return New(p.GetHash(), p.GetSizeBytes())
}

// New returns the digest with the given sha256 hash, 64 lower-case hexadecimal digits, and size in bytes.
func New(hash string, size int64) (Digest, error) {
	if len(hash) != 2*sha256.Size {
		return Digest{}, fmt.Errorf("%w: hash %.80q has %d characters, a sha256 has %d", ErrInvalid, hash, len(hash), 2*sha256.Size)
	}
	if size < 0 {
		return Digest{}, fmt.Errorf("%w: %s has the negative size %d", ErrInvalid, hash, size)
	}
	if strings.ContainsAny(hash, "ABCDEF") {
		return Digest{}, fmt.Errorf("%w: hash %s is not lower case", ErrInvalid, hash)
	}
	d := Digest{size: size, set: true}
	if _, err := hex.Decode(d.hash[:], []byte(hash)); err != nil {
		return Digest{}, fmt.Errorf("%w: hash %q is not hexadecimal", ErrInvalid, hash)
	}
	return d, nil
}

// Parse reads the form that String writes: HASH/SIZE.
func Parse(s string) (Digest, error) {
	hash, size, ok := strings.Cut(s, "/")
	if !ok {
		return Digest{}, fmt.Errorf("%w: %.120q is not HASH/SIZE", ErrInvalid, s)
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != size {
		return Digest{}, fmt.Errorf("%w: %.20q is not a size in bytes", ErrInvalid, size)
	}
	return New(hash, n)
}

// Marshal returns the deterministic encoding of m and its digest.
func Marshal(m proto.Message) ([]byte, Digest, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, Digest{}, err
	}
	return b, FromBytes(b), nil
}

// Hash returns the hash as 64 lower-case hexadecimal digits.
func (d Digest) Hash() string { return hex.EncodeToString(d.hash[:]) }

// Size returns the blob's size in bytes.
func (d Digest) Size() int64 { return d.size }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return !d.set }

// Short returns the first 12 digits of the hash, for people.
func (d Digest) Short() string { return d.Hash()[:12] }

// String returns HASH/SIZE, or "" for the zero value.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return d.Hash() + "/" + strconv.FormatInt(d.size, 10)
}

// Proto returns the REAPI message for d, nil for the zero value.
func (d Digest) Proto() *repb.Digest {
	if d.IsZero() {
		return nil
	}
	return &repb.Digest{Hash: d.Hash(), SizeBytes: d.size}
}

// Compare orders digests by hash, then size.
func (d Digest) Compare(e Digest) int {
	if c := strings.Compare(string(d.hash[:]), string(e.hash[:])); c != 0 {
		return c
	}
	switch {
	case d.size < e.size:
		return -1
	case d.size > e.size:
		return 1
	}
	return 0
}

// MarshalText implements encoding.TextMarshaler with String's form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; the empty text is the zero value.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	p, err := Parse(string(b))
	if err != nil {
		return err
	}
	*d = p
	return nil
}

// FromSum returns the digest with the given sha256 and size, which must not be negative.
func FromSum(sum [sha256.Size]byte, size int64) Digest {
	if size < 0 {
		panic("digest: negative size")
	}
	return Digest{hash: sum, size: size, set: true}
}

// Sum returns the hash's bytes.
func (d Digest) Sum() [sha256.Size]byte { return d.hash }
