package s3

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/pexpress/pexpress/cache/digest"
)

// index is what a node knows of the bucket: the manifest as it last saw it, and entries. Entries only ever say that a
// record was committed, which stays true; whether a record still counts is decided by its pack. So condemning a pack takes
// effect at once, on entries that are loaded later, too.
type index struct {
	mu      sync.RWMutex
	blobs   [shardCount]table[place]
	actions [shardCount]table[action]
	ready   [shardCount]bool // shards whose entries are all here

	packs      []pack
	packOf     map[id]uint32
	free       []uint32 // numbers of packs that are gone
	namespaces names
	principals names
	spare      map[key][]place // further records of an entry: uploaded twice, or copied by gc
	bad        map[place]bool  // records whose bytes were wrong, without their time of use

	epoch uint64        // counts the times when something was condemned or forgotten
	known map[id]uint64 // tails and runs whose entries are here, and the number of the look that brought them
	looks uint64
	dying map[id]bool // what the manifest condemns

	manifest *manifest
	etag     string
	modified time.Time // of the manifest, by S3's clock
	date     time.Time // S3's clock when it last answered about the manifest
	viewAt   time.Time // this node's clock before it last asked for the manifest
}

// place is where a record is.
type place struct {
	pack, offset uint32
	used         uint32
}

// action is an action's entry in memory. As in key, all is of alignment 4.
type action struct {
	place
	principal uint32
	time      [2]uint32
	size      [2]uint32
	function  uint32
	sum       [digest.Size]byte
}

func makeAction(p place, t *target) action {
	a := action{place: p, principal: t.principal, function: uint32(t.result.Function()), sum: t.result.Sum()}
	a.time = split(t.time)
	a.size = split(t.result.Size())
	return a
}

func (a *action) result() digest.Digest {
	return digest.Function(a.function).FromSum(a.sum, join(a.size))
}

func split(n int64) [2]uint32 { return [2]uint32{uint32(n), uint32(n >> 32)} }
func join(n [2]uint32) int64  { return int64(uint64(n[0]) | uint64(n[1])<<32) }

// names numbers strings.
type names struct {
	all []string
	of  map[string]uint32
}

func (n *names) number(s string) uint32 {
	i, ok := n.of[s]
	if !ok {
		i = uint32(len(n.all))
		n.all = append(n.all, s)
		n.of[s] = i
	}
	return i
}

func newIndex() *index {
	x := new(index)
	x.clear()
	return x
}

// clear forgets all entries, as is right for a node that missed too much.
func (x *index) clear() {
	x.epoch++
	seed := rand.Uint64()
	for i := range shardCount {
		x.blobs[i], x.actions[i] = table[place]{seed: seed}, table[action]{seed: seed}
	}
	x.ready = [shardCount]bool{}
	x.packs, x.packOf, x.free = nil, map[id]uint32{}, nil
	x.namespaces, x.principals = names{of: map[string]uint32{}}, names{of: map[string]uint32{}}
	x.spare, x.bad = map[key][]place{}, map[place]bool{}
	x.known, x.dying = map[id]uint64{}, map[id]bool{}
	x.manifest, x.etag = nil, ""
	x.modified, x.date, x.viewAt = time.Time{}, time.Time{}, time.Time{}
}

// age returns how old the view is. The wall clock counts beside the monotonic one, which stands still while a machine
// sleeps.
func (x *index) age(now time.Time) time.Duration {
	if x.viewAt.IsZero() {
		return 1 << 62
	}
	return max(now.Sub(x.viewAt), now.Round(0).Sub(x.viewAt.Round(0)))
}

// state is what a lookup found.
type state uint8

const (
	unknown  state = iota // not here, and the shard it would be in is not loaded
	absent                // not here
	unusable              // condemned, lost or of wrong bytes
	live
)

// usable reports whether records at p count as present. It leaves p's time of use alone, which others may be writing.
func (x *index) usable(p *place) bool {
	k := &x.packs[p.pack]
	return !k.condemned && !k.lost && !x.isBad(p)
}

func (x *index) isBad(p *place) bool {
	return len(x.bad) > 0 && x.bad[place{pack: p.pack, offset: p.offset}]
}

// shardReady reports whether all entries of shard i are here.
func (x *index) shardReady(i int) bool {
	return x.ready[i] || len(x.manifest.Shards) == 0 || x.manifest.Shards[i].Entries == 0
}

func (x *index) missing(shard int) state {
	if x.manifest == nil || !x.shardReady(shard) {
		return unknown
	}
	return absent
}

// blob looks a blob up.
func (x *index) blob(namespace string, d digest.Digest) (*place, state) {
	ns, ok := x.namespaces.of[namespace]
	k := makeKey(ns, kindBlob, d)
	if !ok {
		return nil, x.missing(k.shard())
	}
	p := x.blobs[k.shard()].get(&k)
	if p == nil {
		return nil, x.missing(k.shard())
	}
	return x.best(&k, p)
}

// action looks an action up.
func (x *index) action(namespace string, d digest.Digest) (*action, state) {
	ns, ok := x.namespaces.of[namespace]
	k := makeKey(ns, kindAction, d)
	if !ok {
		return nil, x.missing(k.shard())
	}
	a := x.actions[k.shard()].get(&k)
	if a == nil {
		return nil, x.missing(k.shard())
	}
	_, st := x.best(&k, &a.place)
	return a, st
}

// best returns p, or another record of the entry if that is usable and p is not.
func (x *index) best(k *key, p *place) (*place, state) {
	if x.usable(p) {
		return p, live
	}
	spare := x.spare[*k]
	for i := range spare {
		if x.usable(&spare[i]) {
			return &spare[i], live
		}
	}
	for i := range spare { // condemned ones can be read
		if x.readable(&spare[i]) && !x.readable(p) {
			return &spare[i], unusable
		}
	}
	return p, unusable
}

func (x *index) readable(p *place) bool { return !x.packs[p.pack].lost && !x.isBad(p) }

// touch notes a use if the one before was long ago, and reports that. It needs the read lock only.
func touch(p *place, now time.Time, after time.Duration) bool {
	old := atomic.LoadUint32(&p.used)
	return due(p, now, after) && atomic.CompareAndSwapUint32(&p.used, old, secondsOf(now))
}

// due reports whether the last use that was noted was long ago.
func due(p *place, now time.Time, after time.Duration) bool {
	return now.Unix()-int64(atomic.LoadUint32(&p.used)) >= int64(after/time.Second)
}

// setAside makes a record read as missing on this node.
func (x *index) setAside(f found) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n, ok := x.packOf[f.pack]; ok {
		x.bad[place{pack: n, offset: f.offset}] = true
	}
}

// lose makes all records of a pack read as missing on this node.
func (x *index) lose(i id) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n, ok := x.packOf[i]; ok {
		x.packs[n].lost = true
	}
}

// memory returns about how many bytes the index takes.
func (x *index) memory() (bytes int64, entries int64) {
	for i := range shardCount {
		b, a := &x.blobs[i], &x.actions[i]
		bytes += int64(len(b.slots))*int64(unsafe.Sizeof(slot[place]{})) + int64(len(a.slots))*int64(unsafe.Sizeof(slot[action]{}))
		entries += int64(b.n + a.n)
	}
	const perPack = 16 + 4 + 8 // in packOf, which is about half full
	return bytes + int64(len(x.packs))*int64(unsafe.Sizeof(pack{})+2*perPack), entries
}

// found is a record to be read.
type found struct {
	pack   id
	offset uint32
}

// secondsOf returns a time as entries hold it.
func secondsOf(t time.Time) uint32 { return uint32(max(t.Unix(), 0)) }

// pack is an object with records.
type pack struct {
	packRef
	condemned bool
	lost      bool // a read found that it does not exist
}
