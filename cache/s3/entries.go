package s3

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/pexpress/pexpress/cache/digest"
)

// Tails, runs, shards and lists of touches are files of one format, little-endian and with varints:
//
//	"pxi1"
//	numbers of packs, namespaces, principals and entries
//	packs:      id (16)  size  date (seconds since 1970, by S3's clock)
//	namespaces, principals: length, bytes
//	entries:    kind<<4|function (1)  namespace  hash (its first 16 bytes)  size  pack  offset  used (seconds since 1970)
//	            and for an action: function of the result (1)  its hash (32)  size  time (8, UnixNano)  principal
//	XXH64 of all before (8)
//
// Half of the hash is enough to know an entry by: records hold all of it, and are checked against it when they are read.
const entriesMagic = "pxi1"

// key is the name of an entry: half of the hash, the size, and the namespace, kind and function. Namespaces are numbered
// by the table that goes with the file or index the key is of. It has an alignment of 4, which makes slots compact.
type key struct {
	hash [16]byte
	size [2]uint32
	meta uint32 // namespace<<8 | kind<<4 | function; never 0
}

// maxNamespaces is what fits into key.meta.
const maxNamespaces = 1 << 24

func makeKey(namespace uint32, k kind, d digest.Digest) key {
	sum := d.Sum()
	size := uint64(d.Size())
	return key{
		hash: [16]byte(sum[:16]),
		size: [2]uint32{uint32(size), uint32(size >> 32)},
		meta: namespace<<8 | uint32(k)<<4 | uint32(d.Function()),
	}
}

func (k *key) namespace() uint32         { return k.meta >> 8 }
func (k *key) kind() kind                { return kind(k.meta >> 4 & 0xf) }
func (k *key) function() digest.Function { return digest.Function(k.meta & 0xf) }
func (k *key) blobSize() int64           { return int64(uint64(k.size[0]) | uint64(k.size[1])<<32) }
func (k *key) shard() int                { return int(k.hash[0]) }

// String names what can be said of the entry: half of its hash.
func (k *key) String() string {
	return fmt.Sprintf("%s %s/%x…/%d", k.kind(), k.function(), k.hash, k.blobSize())
}

// target is where an action points.
type target struct {
	result    digest.Digest
	time      int64
	principal uint32
}

// entry says where a record is. Namespace (in the key), pack and principal are numbers of the entries' tables.
type entry struct {
	key    key
	pack   uint32
	offset uint32
	used   uint32 // when it was last written or used, for ranking alone
	target target // of an action
}

// packRef is a pack as a file names it.
type packRef struct {
	id   id
	size int64
	date int64 // when its upload began, by S3's clock
}

// entries is the content of a tail, a run, a shard or a list of touches.
type entries struct {
	packs      []packRef
	namespaces []string
	principals []string
	all        []entry
}

func (e *entries) encode() []byte {
	b := make([]byte, 0, 64+24*len(e.packs)+36*len(e.all))
	b = append(b, entriesMagic...)
	for _, n := range []int{len(e.packs), len(e.namespaces), len(e.principals), len(e.all)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	for _, p := range e.packs {
		b = append(b, p.id[:]...)
		b = binary.AppendUvarint(b, uint64(p.size))
		b = binary.AppendUvarint(b, uint64(p.date))
	}
	for _, s := range slices.Concat(e.namespaces, e.principals) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	for i := range e.all {
		b = appendEntry(b, &e.all[i])
	}
	return appendSum(b)
}

func appendSum(b []byte) []byte { return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b)) }

func appendEntry(b []byte, e *entry) []byte {
	b = append(b, byte(e.key.meta))
	b = binary.AppendUvarint(b, uint64(e.key.namespace()))
	b = append(b, e.key.hash[:]...)
	b = binary.AppendUvarint(b, uint64(e.key.blobSize()))
	b = binary.AppendUvarint(b, uint64(e.pack))
	b = binary.AppendUvarint(b, uint64(e.offset))
	b = binary.AppendUvarint(b, uint64(e.used))
	if e.key.kind() == kindBlob {
		return b
	}
	b = append(b, byte(e.target.result.Function()))
	sum := e.target.result.Sum()
	b = append(b, sum[:]...)
	b = binary.AppendUvarint(b, uint64(e.target.result.Size()))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.target.time))
	return binary.AppendUvarint(b, uint64(e.target.principal))
}

// decodeEntries reads what encode wrote. The memory that it takes is bounded by the length of b.
func decodeEntries(b []byte) (*entries, error) {
	n := len(b) - 8
	if n < len(entriesMagic) || string(b[:4]) != entriesMagic {
		return nil, fmt.Errorf("%w: not an index", errFormat)
	}
	if xxhash.Sum64(b[:n]) != binary.LittleEndian.Uint64(b[n:]) {
		return nil, fmt.Errorf("%w: an index of %d bytes has another checksum", errFormat, len(b))
	}
	r := reader{b: b[4:n]}
	packs, namespaces, principals, all := r.count(18), r.count(1), r.count(1), r.count(21)
	e := &entries{packs: make([]packRef, 0, packs)}
	for range packs {
		var p packRef
		copy(p.id[:], r.bytes(16))
		p.size, p.date = r.int63(), r.int63()
		e.packs = append(e.packs, p)
	}
	e.namespaces, e.principals = r.names(namespaces), r.names(principals)
	if r.bad || all > len(r.b)/21 {
		return nil, fmt.Errorf("%w: an index ends early", errFormat)
	}
	e.all = make([]entry, all)
	for i := range e.all {
		r.entry(&e.all[i], e)
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: an index of %d entries does not add up", errFormat, all)
	}
	return e, nil
}

// reader takes values off b until one is bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > limit {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int63() int64 { return int64(r.uvarint(1<<63 - 1)) }

// count takes the number of things that take at least size bytes each.
func (r *reader) count(size int) int { return int(r.uvarint(uint64(len(r.b) / size))) }

func (r *reader) names(n int) []string {
	s := make([]string, 0, n)
	for range n {
		s = append(s, string(r.bytes(int(r.uvarint(maxName)))))
	}
	return s
}

func (r *reader) byte() byte {
	if p := r.bytes(1); p != nil {
		return p[0]
	}
	return 0
}

// index takes the number of one of n things.
func (r *reader) index(n int) uint32 {
	v := r.uvarint(1<<32 - 1)
	if v >= uint64(n) {
		r.bad = true
	}
	return uint32(v)
}

func (r *reader) entry(e *entry, f *entries) {
	tag := r.byte()
	namespace := r.index(min(len(f.namespaces), maxNamespaces))
	e.key.meta = namespace<<8 | uint32(tag)
	copy(e.key.hash[:], r.bytes(16))
	size := uint64(r.int63())
	e.key.size = [2]uint32{uint32(size), uint32(size >> 32)}
	e.pack = r.index(len(f.packs))
	e.offset, e.used = uint32(r.uvarint(1<<32-1)), uint32(r.uvarint(1<<32-1))
	if !known(e.key.function()) || e.key.kind() > kindAction {
		r.bad = true
	}
	if r.bad || e.key.kind() == kindBlob {
		return
	}
	fn, sum := digest.Function(r.byte()), r.bytes(digest.Size)
	n := r.int63()
	time := r.bytes(8)
	e.target.principal = r.index(len(f.principals))
	if r.bad || !known(fn) {
		r.bad = true
		return
	}
	e.target.result = fn.FromSum([digest.Size]byte(sum), n)
	e.target.time = int64(binary.LittleEndian.Uint64(time))
}

func known(f digest.Function) bool { return f == digest.SHA256 || f == digest.BLAKE3 }
