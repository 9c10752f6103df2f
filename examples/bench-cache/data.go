package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// blob is content and its name, computed before the clock starts.
type blob struct {
	hash string
	data []byte
}

func (b blob) size() int64 { return int64(len(b.data)) }

func (b blob) digest() *repb.Digest { return &repb.Digest{Hash: b.hash, SizeBytes: b.size()} }

// name is the blob's part of a ByteStream resource name.
func (b blob) name() string { return "blobs/" + b.hash + "/" + strconv.FormatInt(b.size(), 10) }

func newBlob(data []byte) blob {
	sum := sha256.Sum256(data)
	return blob{hex.EncodeToString(sum[:]), data}
}

// source makes content that no other source makes. A share of each blob's bytes is text of few words, which zstd makes two
// to four times smaller; the rest is random.
type source struct {
	rng   *rand.Rand
	share float64
}

func newSource(seed uint64, stream uint64, share float64) *source {
	return &source{rand.New(rand.NewPCG(seed, stream)), share}
}

// words are what the compressible share of a blob consists of.
var words = []string{
	"import ", "return ", "self.", "def ", "(", ")", "\n    ", "class ", "None", "value", "= ", "for ", " in ", "result", "key",
	"if ", "not ", "raise ", "ValueError", "\n        ", "config", "[", "]", ", ", "path", "name", "data", "\n\n", ".append", "0", "1", "2",
}

// piece is how much text or randomness stands together.
const piece = 512

func (s *source) blob(size int64) blob {
	b := make([]byte, size)
	for off := int64(0); off < size; off += piece {
		p := b[off:min(off+piece, size)]
		text := int(math.Round(float64(len(p)) * s.share))
		s.random(p[text:])
		s.text(p[:text])
	}
	return newBlob(b)
}

func (s *source) random(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, s.rng.Uint64())
	}
	for i := range b {
		b[i] = byte(s.rng.Uint32())
	}
}

func (s *source) text(b []byte) {
	var bits uint64
	for left := 0; len(b) > 0; left-- {
		if left == 0 {
			bits, left = s.rng.Uint64(), 12
		}
		b = b[copy(b, words[bits%uint64(len(words))]):]
		bits >>= 5
	}
}

func (s *source) blobs(n int, size int64) []blob {
	bs := make([]blob, n)
	for i := range bs {
		bs[i] = s.blob(size)
	}
	return bs
}

// between returns a size between from and to; each order of magnitude is as likely as the next.
func (s *source) between(from, to float64) int64 {
	return int64(from * math.Pow(to/from, s.rng.Float64()))
}

// realistic returns a size as real caches see them: two thirds under 1 KiB, 86 % under 10 KiB, a tail beyond.
func (s *source) realistic() int64 {
	switch p := s.rng.Float64(); {
	case p < 0.667:
		return s.between(48, 1<<10)
	case p < 0.86:
		return s.between(1<<10, 10<<10)
	case p < 0.985:
		return s.between(10<<10, 1<<20)
	default:
		return s.between(1<<20, 24<<20)
	}
}
