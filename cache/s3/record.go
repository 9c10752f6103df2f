package s3

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/pexpress/pexpress/cache/digest"
)

// A pack is a sequence of records and nothing else; an index can be made from it alone. A record is
//
//	"pxr1"  kind  function  length of the namespace (2 bytes)  size (8)  length of the payload (8)  hash (32)
//	namespace  CRC-32C of all before (4)
//	blocks: 64 KiB of the payload, the last one less, each followed by its CRC-32C (4)
//
// in little-endian. A blob's payload is its bytes, an action's is a pointer. The checksums make ranges of a blob
// verifiable, and let a reader go on at a block's start where a connection broke. A blob too large for a pack with
// others has one to itself.
const (
	recordMagic = "pxr1"
	recordFixed = 4 + 1 + 1 + 2 + 8 + 8 + digest.Size
	sumLen      = 4
	blockSize   = 64 << 10

	// maxName bounds the names of namespaces and principals.
	maxName = 4 << 10
	// maxHeader is the longest that a record's header can be.
	maxHeader = recordFixed + maxName + sumLen
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errFormat is wrapped by all errors of the parsers here.
var errFormat = errors.New("damaged or unknown format")

// kind is what an entry is.
type kind uint8

const (
	kindBlob   kind = 0
	kindAction kind = 1
)

func (k kind) String() string {
	if k == kindAction {
		return "result of action"
	}
	return "blob"
}

// header describes a record.
type header struct {
	kind      kind
	namespace string
	digest    digest.Digest
	payload   int64
}

// headerLen returns the length of a record's header, which depends on nothing but the namespace's name.
func headerLen(namespace string) int64 { return int64(recordFixed + len(namespace) + sumLen) }

// blocksLen returns the stored length of n bytes of payload.
func blocksLen(n int64) int64 { return n + (n+blockSize-1)/blockSize*sumLen }

// recordLen returns the stored length of a record.
func (h *header) recordLen() int64 { return headerLen(h.namespace) + blocksLen(h.payload) }

// appendHeader appends the encoding of h.
func appendHeader(b []byte, h *header) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	b = append(b, byte(h.kind), byte(h.digest.Function()))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(h.namespace)))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.digest.Size()))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.payload))
	sum := h.digest.Sum()
	b = append(b, sum[:]...)
	b = append(b, h.namespace...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// appendBlocks appends payload as blocks.
func appendBlocks(b, payload []byte) []byte {
	for len(payload) > 0 {
		n := min(len(payload), blockSize)
		b = append(b, payload[:n]...)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload[:n], castagnoli))
		payload = payload[n:]
	}
	return b
}

// appendRecord appends a whole record.
func appendRecord(b []byte, h *header, payload []byte) []byte {
	return appendBlocks(appendHeader(b, h), payload)
}

// parseHeader reads the header at the start of b, which may go on, and returns its length.
func parseHeader(b []byte) (header, int, error) {
	if len(b) < recordFixed || string(b[:4]) != recordMagic {
		return header{}, 0, fmt.Errorf("%w: no record begins here", errFormat)
	}
	n := int(binary.LittleEndian.Uint16(b[6:]))
	end := recordFixed + n
	if n > maxName || len(b) < end+sumLen {
		return header{}, 0, fmt.Errorf("%w: a record's header ends early", errFormat)
	}
	if crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return header{}, 0, fmt.Errorf("%w: a record's header has another checksum", errFormat)
	}
	h := header{kind: kind(b[4]), namespace: string(b[recordFixed:end]), payload: int64(binary.LittleEndian.Uint64(b[16:]))}
	d, err := parseDigest(b[5], b[24:24+digest.Size], binary.LittleEndian.Uint64(b[8:]))
	if err != nil {
		return header{}, 0, err
	}
	h.digest = d
	switch {
	case h.kind > kindAction:
		return header{}, 0, fmt.Errorf("%w: a record of kind %d", errFormat, h.kind)
	case h.kind == kindBlob && h.payload != d.Size():
		return header{}, 0, fmt.Errorf("%w: a record of %d bytes for blob %s", errFormat, h.payload, d)
	case h.kind == kindAction && (h.payload < 0 || h.payload > maxPointer):
		return header{}, 0, fmt.Errorf("%w: a pointer of %d bytes", errFormat, h.payload)
	}
	return h, end + sumLen, nil
}

func parseDigest(fn byte, sum []byte, size uint64) (digest.Digest, error) {
	f := digest.Function(fn)
	if f != digest.SHA256 && f != digest.BLAKE3 {
		return digest.Digest{}, fmt.Errorf("%w: digest function %d", errFormat, fn)
	}
	if int64(size) < 0 {
		return digest.Digest{}, fmt.Errorf("%w: a size of %d", errFormat, size)
	}
	return f.FromSum([digest.Size]byte(sum), int64(size)), nil
}

// parsePayload checks the blocks of a payload of n bytes at the start of b and returns it, in b's memory, which it
// overwrites.
func parsePayload(b []byte, n int64) ([]byte, error) {
	if n < 0 || blocksLen(n) < n || int64(len(b)) < blocksLen(n) {
		return nil, fmt.Errorf("a record ends early: %w", io.ErrUnexpectedEOF)
	}
	out := b[:0:len(b)]
	for left := n; left > 0; {
		size := min(left, blockSize)
		p, err := checkBlock(b[:size+sumLen])
		if err != nil {
			return nil, err
		}
		out, b, left = append(out, p...), b[size+sumLen:], left-size
	}
	return out, nil
}

// checkBlock returns the bytes of a block without its checksum.
func checkBlock(b []byte) ([]byte, error) {
	n := len(b) - sumLen
	if crc32.Checksum(b[:n], castagnoli) != binary.LittleEndian.Uint32(b[n:]) {
		return nil, fmt.Errorf("%w: a block of %d bytes has another checksum", digest.ErrMismatch, n)
	}
	return b[:n:n], nil
}

// pointer is what an action's record holds, and all that the ActionCache knows.
type pointer struct {
	result    digest.Digest
	time      int64 // UnixNano; of two pointers for one action the later one counts
	principal string
}

const (
	pointerFixed = 1 + 8 + digest.Size + 8
	maxPointer   = pointerFixed + maxName
)

func appendPointer(b []byte, p *pointer) []byte {
	b = append(b, byte(p.result.Function()))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.result.Size()))
	sum := p.result.Sum()
	b = append(b, sum[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.time))
	return append(b, p.principal...)
}

func parsePointer(b []byte) (pointer, error) {
	if len(b) < pointerFixed || len(b) > maxPointer {
		return pointer{}, fmt.Errorf("%w: a pointer of %d bytes", errFormat, len(b))
	}
	d, err := parseDigest(b[0], b[9:9+digest.Size], binary.LittleEndian.Uint64(b[1:]))
	if err != nil {
		return pointer{}, err
	}
	b = b[9+digest.Size:]
	return pointer{result: d, time: int64(binary.LittleEndian.Uint64(b)), principal: string(b[8:])}, nil
}
