package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/pexpress/pexpress/cache/durable"
)

// segment is a file of records. Only the last one grows. An old one is removed as a whole.
type segment struct {
	id     uint32
	f      *os.File
	use    sync.RWMutex // held while f is read, and while it is closed
	gone   bool         // f is closed
	size   int64        // of the records that are durable
	extra  int64        // of the files that its records name
	sealed uint32
	zeroed int64  // up to here the file of the segment that grows has zeros behind its records; the committer's
	items  []item // of the segment that grows; the others' are in their index files
}

// errGone says that a segment was evicted: its entry, if it was carried over, is somewhere else now.
var errGone = errors.New("the segment is gone")

// read reads a record; see readRecord.
func (g *segment) read(offset, length int64, buf []byte) (record, []byte, error) {
	g.use.RLock()
	defer g.use.RUnlock()
	if g.gone {
		return record{}, nil, errGone
	}
	return readRecord(g.f, offset, length, buf)
}

// close gives back the room that the file takes on disk, which is its only when nobody has it open.
func (g *segment) close() error {
	g.use.Lock()
	defer g.use.Unlock()
	if g.gone {
		return nil
	}
	g.gone = true
	return g.f.Close()
}

// item is what an index file says of one record: all that an entry needs. See appendItem.
type item struct {
	entry
	kind   kind
	offset uint32
}

// itemSize is the length of an item in an index file:
//
//	 0  [16] first half of the hash
//	16  u64  size, then 16 bits of namespace
//	24  u64  id of a large blob's file
//	32  u32  offset of the record
//	36  u32  time
//	40  u8   class
//	41  u24  length of the large blob's file, in units of 16 KiB
//	44  u8   kind
//	45  u24  zero
const itemSize = 48

const (
	indexMagic  = "PXI1"
	indexHeader = 16 // magic, CRC-32C of the items, length of the segment (u64)
)

func appendItem(b []byte, it *item) []byte {
	b = append(b, it.key[:]...)
	b = binary.LittleEndian.AppendUint64(b, it.sizeNS)
	id := uint64(0)
	if it.isFile() {
		id = it.loc
	}
	b = binary.LittleEndian.AppendUint64(b, id)
	b = binary.LittleEndian.AppendUint32(b, it.offset)
	b = binary.LittleEndian.AppendUint32(b, it.touch)
	return append(b, byte(it.class), it.units[0], it.units[1], it.units[2], byte(it.kind), 0, 0, 0)
}

func parseItem(b []byte, segment uint32) item {
	it := item{
		kind: kind(b[44]), offset: binary.LittleEndian.Uint32(b[32:]),
		entry: entry{
			key: [16]byte(b[:16]), sizeNS: binary.LittleEndian.Uint64(b[16:]), class: class(b[40]), units: [3]byte(b[41:44]),
			touch: binary.LittleEndian.Uint32(b[36:]),
		},
	}
	if it.isFile() {
		it.loc = binary.LittleEndian.Uint64(b[24:])
	} else {
		it.loc = uint64(segment)<<32 | uint64(it.offset)
	}
	return it
}

// itemOf returns what the index holds of a record.
func itemOf(r record, segment, offset uint32, payload []byte) item {
	action := class(r.kind) & classAction
	f := refOf(r.digest, r.ns, action)
	size := r.digest.Size()
	if action != 0 {
		size = int64(r.length) // what has to be read; the digest's own size is in the record
	}
	it := item{kind: r.kind &^ ofAction, offset: offset, entry: entry{
		key: f.key, sizeNS: uint64(size)<<16 | uint64(r.ns), loc: uint64(segment)<<32 | uint64(offset), touch: r.time, class: f.class,
	}}
	if it.kind == kindFile && len(payload) == filePayload {
		it.class |= classFile
		it.loc = binary.LittleEndian.Uint64(payload)
		it.setStored(int64(binary.LittleEndian.Uint64(payload[8:])))
	}
	return it
}

func (s *Store) segmentPath(id uint32) string {
	return filepath.Join(s.dir, "segments", fmt.Sprintf("%08d", id))
}

const indexSuffix = ".index"

// segmentIDs lists the segments that are there, oldest first.
func (s *Store) segmentIDs() ([]uint32, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "segments")) // sorted by name, and names have eight digits
	if err != nil {
		return nil, err
	}
	var ids []uint32
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), indexSuffix) {
			continue
		}
		id, err := strconv.ParseUint(e.Name(), 10, 32)
		if err == nil && fmt.Sprintf("%08d", id) == e.Name() {
			ids = append(ids, uint32(id))
		}
	}
	return ids, nil
}

// openSegment opens a segment of an earlier run and reads its index. Where that is missing or damaged it is made again from
// the records.
func (s *Store) openSegment(id uint32, newest bool) (*segment, index, error) {
	f, err := os.OpenFile(s.segmentPath(id), os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	g := &segment{id: id, f: f, sealed: s.seconds()}
	ix, err := s.readIndex(g)
	if err != nil {
		if g.items, err = scan(g, !newest); err == nil {
			ix, g.items = g.index(), nil
			// On a full disk it can't be written, nor need be: it can be made again.
			if durable.WriteFile(s.segmentPath(id)+indexSuffix, ix, 0o600) != nil {
				_ = os.Remove(s.segmentPath(id) + indexSuffix)
			}
		}
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("segment %s: %w", f.Name(), err), f.Close())
	}
	for it := range ix.items(id) {
		g.extra += it.stored()
	}
	return g, ix, nil
}

// index is the content of an index file, checked: a header, then items.
type index []byte

// items yields what is in the index of a segment.
func (ix index) items(segment uint32) iter.Seq[*item] {
	return func(yield func(*item) bool) {
		for at := indexHeader; at < len(ix); at += itemSize {
			it := parseItem(ix[at:at+itemSize], segment)
			if !yield(&it) {
				return
			}
		}
	}
}

func (ix index) len() int { return (len(ix) - indexHeader) / itemSize }

// readIndex reads a sealed segment's index. It is an error if it isn't that of all of the segment.
func (s *Store) readIndex(g *segment) (index, error) {
	b, err := os.ReadFile(s.segmentPath(g.id) + indexSuffix)
	if err != nil {
		return nil, err
	}
	st, err := g.f.Stat()
	if err != nil {
		return nil, err
	}
	ix, size, err := parseIndex(b)
	if err == nil && size != st.Size() {
		err = fmt.Errorf("%w: the index is of another segment", errRecord)
	}
	if err == nil {
		g.size = size
	}
	return ix, err
}

// parseIndex checks an index file and returns the length of its segment.
func parseIndex(b []byte) (index, int64, error) {
	if len(b) < indexHeader || string(b[:4]) != indexMagic || (len(b)-indexHeader)%itemSize != 0 ||
		crc32.Checksum(b[8:], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, fmt.Errorf("%w: not an index", errRecord)
	}
	return b, int64(binary.LittleEndian.Uint64(b[8:])), nil
}

// writeIndex writes the index of a segment that will not grow.
func (s *Store) writeIndex(g *segment) error {
	return durable.WriteFile(s.segmentPath(g.id)+indexSuffix, g.index(), 0o600)
}

// index returns the index of a segment whose items are known.
func (g *segment) index() index {
	b := make([]byte, indexHeader, indexHeader+itemSize*len(g.items))
	copy(b, indexMagic)
	binary.LittleEndian.PutUint64(b[8:], uint64(g.size))
	for i := range g.items {
		b = appendItem(b, &g.items[i])
	}
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

// scan reads a segment's records. In one that was still growing, the first that is not whole is where a crash ended it, and
// the rest is cut off. In a sealed one it is damage, and what follows is still there.
func scan(g *segment, sealed bool) ([]item, error) {
	st, err := g.f.Stat()
	if err != nil {
		return nil, err
	}
	var items []item
	var h [headerSize]byte
	for g.size+headerSize <= st.Size() {
		if _, err := g.f.ReadAt(h[:], g.size); err != nil {
			return nil, err
		}
		r, err := parseRecord(h[:])
		if err != nil || int64(r.length) > st.Size()-g.size-headerSize {
			break
		}
		payload := make([]byte, r.length)
		if _, err := g.f.ReadAt(payload, g.size+headerSize); err != nil && err != io.EOF {
			return nil, err
		}
		if r.checkPayload(payload) == nil {
			items = append(items, itemOf(r, g.id, uint32(g.size), payload))
		} else if !sealed {
			break
		}
		g.size += headerSize + int64(r.length)
	}
	if g.size == st.Size() || sealed {
		g.size = st.Size()
		return items, nil
	}
	return items, errors.Join(g.f.Truncate(g.size), g.f.Sync())
}
