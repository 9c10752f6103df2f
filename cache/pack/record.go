package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/pexpress/pexpress/cache/digest"
)

// headerSize is the length of a record's header. A segment is nothing but records:
//
//	 0  u32  magic
//	 4  u32  CRC-32C of the rest of the header
//	 8  u8   kind
//	 9  u8   digest function
//	10  u16  namespace
//	12  u32  length of the payload, which follows the header
//	16  i64  size of what the digest names
//	24  [32] hash
//	56  u32  time of writing, or of the use that it records: seconds since 1970
//	60  u32  CRC-32C of the payload
//
// All numbers are little endian.
const (
	headerSize = 64
	magic      = 0x31525850 // "PXR1"
)

// kind says what a record is.
type kind uint8

const (
	kindBlob  kind = 1 // the payload is a blob, or an ActionResult after its writer's name
	kindFile  kind = 2 // the payload names the file that holds a large blob: id and length, u64 each
	kindTouch kind = 3 // the entry was found at the time given
	kindGone  kind = 4 // the entry is no more

	ofAction kind = 0x10 // the record is about an ActionCache entry rather than about a blob
)

// filePayload is the length of a kindFile record's payload.
const filePayload = 16

// errRecord is wrapped by every error about bytes that are not a record.
var errRecord = errors.New("damaged record")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is a header.
type record struct {
	kind   kind
	ns     uint16
	digest digest.Digest
	time   uint32
	length uint32 // of the payload
	crc    uint32 // of the payload
}

// appendRecord appends the header and its payload.
func appendRecord(b []byte, r record, payload ...[]byte) []byte {
	start := len(b)
	b = append(b, make([]byte, headerSize)...)
	length, crc := 0, uint32(0)
	for _, p := range payload {
		length += len(p)
		crc = crc32.Update(crc, castagnoli, p)
	}
	h := b[start:]
	binary.LittleEndian.PutUint32(h, magic)
	h[8], h[9] = byte(r.kind), byte(r.digest.Function())
	binary.LittleEndian.PutUint16(h[10:], r.ns)
	binary.LittleEndian.PutUint32(h[12:], uint32(length))
	binary.LittleEndian.PutUint64(h[16:], uint64(r.digest.Size()))
	sum := r.digest.Sum()
	copy(h[24:], sum[:])
	binary.LittleEndian.PutUint32(h[56:], r.time)
	binary.LittleEndian.PutUint32(h[60:], crc)
	binary.LittleEndian.PutUint32(h[4:], crc32.Checksum(h[8:headerSize], castagnoli))
	for _, p := range payload {
		b = append(b, p...)
	}
	return b
}

// parseRecord reads a header.
func parseRecord(h []byte) (record, error) {
	if len(h) < headerSize || binary.LittleEndian.Uint32(h) != magic {
		return record{}, fmt.Errorf("%w: no header", errRecord)
	}
	if crc32.Checksum(h[8:headerSize], castagnoli) != binary.LittleEndian.Uint32(h[4:]) {
		return record{}, fmt.Errorf("%w: the header's checksum is wrong", errRecord)
	}
	r := record{
		kind: kind(h[8]), ns: binary.LittleEndian.Uint16(h[10:]), length: binary.LittleEndian.Uint32(h[12:]),
		time: binary.LittleEndian.Uint32(h[56:]), crc: binary.LittleEndian.Uint32(h[60:]),
	}
	fn, size := digest.Function(h[9]), int64(binary.LittleEndian.Uint64(h[16:]))
	if (fn != digest.SHA256 && fn != digest.BLAKE3) || size < 0 || size > maxSize {
		return record{}, fmt.Errorf("%w: function %d, size %d", errRecord, fn, size)
	}
	r.digest = fn.FromSum([digest.Size]byte(h[24:56]), size)
	return r, nil
}

// checkPayload verifies what follows a header.
func (r record) checkPayload(p []byte) error {
	if uint32(len(p)) != r.length || crc32.Checksum(p, castagnoli) != r.crc {
		return fmt.Errorf("%w: the payload's checksum is wrong", errRecord)
	}
	return nil
}
