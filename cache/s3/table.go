package s3

import (
	"encoding/binary"
	"math/bits"
)

// table is a hash table from keys to small values without pointers: open addressing, linear probing, at most four of
// five slots taken. It is sized for what it holds, in steps of a quarter, so that an entry of 40 bytes costs 50 to 63.
type table[V any] struct {
	slots []slot[V]
	n     int
	seed  uint64
}

// slot is free while key.meta is 0.
type slot[V any] struct {
	key   key
	value V
}

// home returns the slot where the search for k begins. Clients choose digests, so the seed is a secret of the process.
func (t *table[V]) home(k *key) int {
	h := (binary.LittleEndian.Uint64(k.hash[8:]) ^ t.seed ^ uint64(k.meta)<<32) * 0x9e3779b97f4a7c15
	high, _ := bits.Mul64(h, uint64(len(t.slots)))
	return int(high)
}

// get returns where the value of k is, valid until the next put, or nil.
func (t *table[V]) get(k *key) *V {
	if t.n == 0 {
		return nil
	}
	for i := t.home(k); ; {
		s := &t.slots[i]
		if s.key == *k {
			return &s.value
		}
		if s.key.meta == 0 {
			return nil
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
}

// put returns where the value of k goes, and whether k is new.
func (t *table[V]) put(k *key) (v *V, fresh bool) {
	if v := t.get(k); v != nil {
		return v, false
	}
	if (t.n+1)*5 > len(t.slots)*4 {
		t.resize(t.n + t.n/4 + 8)
	}
	t.n++
	return t.insert(k), true
}

func (t *table[V]) insert(k *key) *V {
	i := t.home(k)
	for t.slots[i].key.meta != 0 {
		if i++; i == len(t.slots) {
			i = 0
		}
	}
	t.slots[i].key = *k
	return &t.slots[i].value
}

// reserve makes room for n more.
func (t *table[V]) reserve(n int) {
	if (t.n+n)*5 > len(t.slots)*4 {
		t.resize(t.n + n)
	}
}

// resize makes the table as large as n entries need.
func (t *table[V]) resize(n int) {
	old := t.slots
	t.slots = make([]slot[V], n*5/4+1)
	for i := range old {
		if old[i].key.meta != 0 {
			*t.insert(&old[i].key) = old[i].value
		}
	}
}

// each calls f for every entry.
func (t *table[V]) each(f func(*key, *V)) {
	for i := range t.slots {
		if t.slots[i].key.meta != 0 {
			f(&t.slots[i].key, &t.slots[i].value)
		}
	}
}

// drop removes the entries that f chooses.
func (t *table[V]) drop(f func(*key, *V) bool) {
	kept := 0
	t.each(func(k *key, v *V) {
		if !f(k, v) {
			kept++
		}
	})
	if kept == t.n {
		return
	}
	old := t.slots
	t.slots, t.n = make([]slot[V], kept*5/4+1), kept
	for i := range old {
		if old[i].key.meta != 0 && !f(&old[i].key, &old[i].value) {
			*t.insert(&old[i].key) = old[i].value
		}
	}
}
