// Package digest names a blob by what it contains: a REAPI digest function, the hash of the bytes and their number.
//
// A Digest is a small comparable value. It can be made only from bytes or by one of the parsers here, so that a
// Digest in hand is always well formed. See the Remote Execution API, message Digest.
package digest

import (
	"bytes"
	"cmp"
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
	hash [Size]byte
	size int64
	fn   Function
}

// Empty is the sha256 digest of the empty blob. REAPI says that the empty blob exists everywhere; see [Digest.IsEmpty].
var Empty = FromBytes(nil)

// FromBytes returns the sha256 digest of b.
func FromBytes(b []byte) Digest { return SHA256.FromBytes(b) }

// FromProto returns the sha256 digest of a REAPI message after checking it.
func FromProto(p *repb.Digest) (Digest, error) { return SHA256.FromProto(p) }

// FromProto returns the digest of a REAPI message, made by f, after checking it.
func (f Function) FromProto(p *repb.Digest) (Digest, error) {
	if p == nil {
		return Digest{}, fmt.Errorf("%w: no digest given", ErrInvalid)
	}
	return f.New(p.GetHash(), p.GetSizeBytes())
}

// New returns the digest with the given sha256 hash, 64 lower-case hexadecimal digits, and size in bytes.
func New(hash string, size int64) (Digest, error) { return SHA256.New(hash, size) }

// New returns the digest with the given hash, 64 lower-case hexadecimal digits, and size in bytes.
func (f Function) New(hash string, size int64) (Digest, error) {
	if len(hash) != 2*Size {
		return Digest{}, fmt.Errorf("%w: hash %.80q has %d characters, a %s has %d", ErrInvalid, hash, len(hash), f, 2*Size)
	}
	if size < 0 {
		return Digest{}, fmt.Errorf("%w: %s has the negative size %d", ErrInvalid, hash, size)
	}
	d := Digest{size: size, fn: f}
	for i := range d.hash {
		high, low := nibble[hash[2*i]], nibble[hash[2*i+1]]
		if high|low > 15 {
			return Digest{}, fmt.Errorf("%w: hash %q is not lower-case hexadecimal", ErrInvalid, hash)
		}
		d.hash[i] = high<<4 | low
	}
	return d, nil
}

// nibble maps a lower-case hexadecimal digit to its value, and everything else to more than 15. A server parses millions
// of digests a second: hex.Decode would take upper case, too, and is slower.
var nibble = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	return t
}()

// Parse reads the form that String writes: HASH/SIZE for sha256, FUNCTION/HASH/SIZE for others.
func Parse(s string) (Digest, error) {
	f := SHA256
	if name, rest, ok := strings.Cut(s, "/"); ok {
		if g, known := byName[name]; known {
			f, s = g, rest
		}
	}
	hash, size, ok := strings.Cut(s, "/")
	if !ok {
		return Digest{}, fmt.Errorf("%w: %.120q is not HASH/SIZE", ErrInvalid, s)
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != size {
		return Digest{}, fmt.Errorf("%w: %.20q is not a size in bytes", ErrInvalid, size)
	}
	return f.New(hash, n)
}

// Marshal returns the deterministic encoding of m and its digest.
func Marshal(m proto.Message) ([]byte, Digest, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, Digest{}, err
	}
	return b, FromBytes(b), nil
}

// Function returns the digest function.
func (d Digest) Function() Function { return d.fn }

// Hash returns the hash as 64 lower-case hexadecimal digits.
func (d Digest) Hash() string { return hex.EncodeToString(d.hash[:]) }

// Size returns the blob's size in bytes.
func (d Digest) Size() int64 { return d.size }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d.fn == 0 }

// IsEmpty reports whether d names the empty blob.
func (d Digest) IsEmpty() bool { return d.size == 0 && d.fn != 0 && d.hash == functions[d.fn].empty }

// Short returns the first 12 digits of the hash, for people.
func (d Digest) Short() string { return d.Hash()[:12] }

// String returns HASH/SIZE, with FUNCTION/ before it unless that is sha256, or "" for the zero value.
func (d Digest) String() string {
	switch d.fn {
	case 0:
		return ""
	case SHA256:
	default:
		return d.fn.String() + "/" + d.Hash() + "/" + strconv.FormatInt(d.size, 10)
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

// Compare orders digests by hash, then size, then function.
func (d Digest) Compare(e Digest) int {
	return cmp.Or(bytes.Compare(d.hash[:], e.hash[:]), cmp.Compare(d.size, e.size), cmp.Compare(d.fn, e.fn))
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
func FromSum(sum [Size]byte, size int64) Digest { return SHA256.FromSum(sum, size) }

// FromSum returns the digest with the given hash and size, which must not be negative.
func (f Function) FromSum(sum [Size]byte, size int64) Digest {
	if size < 0 {
		panic("digest: negative size")
	}
	return Digest{hash: sum, size: size, fn: f}
}

// Sum returns the hash's bytes.
func (d Digest) Sum() [Size]byte { return d.hash }
