package pack

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"

	"github.com/pexpress/pexpress/cache/digest"
)

// entry is what the index holds in memory for one blob or ActionResult: 40 bytes, 45 to 70 with the free slots around it.
//
// Half of the hash is enough of a key: who wanted to make two contents of one key would have to find a second preimage
// of 128 bits, and all he could reach is that a blob reads as damaged, since the whole hash is compared on reading.
type entry struct {
	key    [16]byte // the first half of the hash
	sizeNS uint64   // size, then 16 bits of namespace
	loc    uint64   // segment and offset, 32 bits each; for a large blob, the id of its file
	touch  uint32   // last use that counts, in seconds since 1970; atomic where only a read lock is held
	class  class
	units  [3]byte // length of a large blob's file, in units of fileUnit
}

// fileUnit is what the length of a large blob's file is rounded up to when it is counted.
const fileUnit = 16 << 10

// class tells apart entries of one key. Zero is a free slot.
type class uint8

const (
	classFunction class = 0x0f // the digest function
	classAction   class = 0x10
	classFile     class = 0x20 // the blob has a file of its own
)

// maxSize is the size of the largest blob that an entry can hold.
const maxSize = 1<<24*fileUnit - 1<<20

// ref names an entry.
type ref struct {
	key   [16]byte
	ns    uint16
	class class // without classFile
}

func refOf(d digest.Digest, ns uint16, action class) ref {
	sum := d.Sum()
	return ref{key: [16]byte(sum[:16]), ns: ns, class: class(d.Function()) | action}
}

func (e *entry) is(r *ref) bool {
	return e.key == r.key && uint16(e.sizeNS) == r.ns && e.class&^classFile == r.class
}

func (e *entry) ref() ref { return ref{key: e.key, ns: uint16(e.sizeNS), class: e.class &^ classFile} }

func (e *entry) size() int64 { return int64(e.sizeNS >> 16) }

func (e *entry) segment() uint32 { return uint32(e.loc >> 32) }

func (e *entry) offset() int64 { return int64(uint32(e.loc)) }

// stored is what the blob's file takes up, 0 for what has none.
func (e *entry) stored() int64 {
	return int64(uint32(e.units[0])|uint32(e.units[1])<<8|uint32(e.units[2])<<16) * fileUnit
}

func (e *entry) setStored(n int64) {
	u := (n + fileUnit - 1) / fileUnit
	e.units = [3]byte{byte(u), byte(u >> 8), byte(u >> 16)}
}

func (e *entry) isFile() bool { return e.class&classFile != 0 }

// table maps refs to entries: open addressing, linear probing, in parts that grow one by one so that no growth takes
// long. Its user locks it.
type table struct {
	seed  uint64
	parts [256]part
	n     int
}

type part struct {
	slots []entry // a power of two, or none
	n     int
}

func newTable() *table { return &table{seed: rand.Uint64()} }

// place returns the part and the first slot to look at. The seed keeps whoever chooses contents from choosing slots.
func (t *table) place(key *[16]byte) (*part, uint64) {
	h := (binary.LittleEndian.Uint64(key[:]) ^ t.seed) * 0x9e3779b97f4a7c15
	return &t.parts[h>>56], h >> 8
}

// find returns the entry, nil if there is none. It moves when the table is next changed.
func (t *table) find(r *ref) *entry {
	p, h := t.place(&r.key)
	if p.n == 0 {
		return nil
	}
	mask := uint64(len(p.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		e := &p.slots[i]
		if e.class == 0 {
			return nil
		}
		if e.is(r) {
			return e
		}
	}
}

// insert adds e, or puts it in the place of the entry of the same name, which it returns.
func (t *table) insert(e entry) (old entry) {
	r := e.ref()
	if at := t.find(&r); at != nil {
		old, *at = *at, e
		return old
	}
	p, _ := t.place(&e.key)
	if 8*(p.n+1) > 7*len(p.slots) {
		t.enlarge(p, 2*len(p.slots))
	}
	t.add(p, e)
	p.n++
	t.n++
	return entry{}
}

func (t *table) add(p *part, e entry) {
	_, h := t.place(&e.key)
	mask := uint64(len(p.slots) - 1)
	i := h & mask
	for p.slots[i].class != 0 {
		i = (i + 1) & mask
	}
	p.slots[i] = e
}

// grow makes room for n entries in all.
func (t *table) grow(n int) {
	per := n/len(t.parts) + n/len(t.parts)/16
	slots := 8
	for 8*per > 7*slots {
		slots *= 2
	}
	for i := range t.parts {
		if p := &t.parts[i]; len(p.slots) < slots {
			t.enlarge(p, slots)
		}
	}
}

func (t *table) enlarge(p *part, slots int) {
	old := p.slots
	p.slots = make([]entry, max(8, slots))
	for i := range old {
		if old[i].class != 0 {
			t.add(p, old[i])
		}
	}
}

// remove removes an entry and returns it. Those after it move up, so that no probe ends too early.
func (t *table) remove(r ref) (old entry) {
	at := t.find(&r)
	if at == nil {
		return entry{}
	}
	old = *at
	p, h := t.place(&r.key)
	mask := uint64(len(p.slots) - 1)
	hole := h & mask
	for &p.slots[hole] != at {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; p.slots[i].class != 0; i = (i + 1) & mask {
		_, home := t.place(&p.slots[i].key)
		// Does the entry's way from its home to i lead over the hole?
		if (i-home)&mask >= (i-hole)&mask {
			p.slots[hole] = p.slots[i]
			hole = i
		}
	}
	p.slots[hole] = entry{}
	p.n--
	t.n--
	return old
}

// all calls f for every entry until it returns false.
func (t *table) all(f func(e *entry) bool) {
	for i := range t.parts {
		for j := range t.parts[i].slots {
			if e := &t.parts[i].slots[j]; e.class != 0 && !f(e) {
				return
			}
		}
	}
}

// touched is the time of the last use.
func (e *entry) touched() uint32 { return atomic.LoadUint32(&e.touch) }
