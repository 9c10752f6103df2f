package asset

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"hash"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
)

// integrity are checksums of which one has to be right: the value of the qualifier checksum.sri. See Subresource
// Integrity, https://www.w3.org/TR/SRI/.
type integrity []checksum

type checksum struct {
	algorithm string
	sum       string // raw bytes
}

// algorithms are those of Subresource Integrity.
var algorithms = map[string]func() hash.Hash{"sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}

// maxChecksums bounds the work of hashing.
const maxChecksums = 16

// parseSRI reads checksums. One by an algorithm that is not known does not count; if that leaves none, nothing could
// ever be right.
func parseSRI(s string) (integrity, error) {
	var all integrity
	for word := range strings.FieldsSeq(s) {
		name, value, ok := strings.Cut(word, "-")
		if !ok {
			return nil, errors.New("it is not ALGORITHM-BASE64")
		}
		make, known := algorithms[name]
		if !known {
			continue
		}
		value, _, _ = strings.Cut(value, "?") // options, which mean nothing so far
		sum, err := base64.StdEncoding.Strict().DecodeString(value)
		if err != nil || len(sum) != make().Size() {
			return nil, errors.New("a checksum has not the form or length that its algorithm gives it")
		}
		if all = append(all, checksum{name, string(sum)}); len(all) > maxChecksums {
			return nil, errors.New("it holds too many checksums")
		}
	}
	if all == nil {
		return nil, errors.New("it holds no checksum by sha256, sha384 or sha512")
	}
	return all, nil
}

// sha256 returns the one checksum, if that is what there is.
func (i integrity) sha256() (sum [digest.Size]byte, ok bool) {
	if len(i) != 1 || i[0].algorithm != "sha256" {
		return sum, false
	}
	copy(sum[:], i[0].sum)
	return sum, true
}

// verifier hashes content for each algorithm that is asked for.
type verifier struct {
	want   integrity
	hashes map[string]hash.Hash
}

func (i integrity) verifier() *verifier {
	v := &verifier{want: i, hashes: map[string]hash.Hash{}}
	for _, c := range i {
		if v.hashes[c.algorithm] == nil {
			v.hashes[c.algorithm] = algorithms[c.algorithm]()
		}
	}
	return v
}

// Write implements io.Writer.
func (v *verifier) Write(p []byte) (int, error) {
	for _, h := range v.hashes {
		h.Write(p)
	}
	return len(p), nil
}

// ok reports whether what was written has one of the checksums, or none was asked for.
func (v *verifier) ok() bool {
	for _, c := range v.want {
		if string(v.hashes[c.algorithm].Sum(nil)) == c.sum {
			return true
		}
	}
	return len(v.want) == 0
}
