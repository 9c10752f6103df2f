package s3

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// collection ranks the records of the bucket.
type collection struct {
	manifest  *manifest
	used      []*entries // touches
	touchKeys []string
	pins      []*entries // of roots

	mu        sync.Mutex
	rows      []row
	pinned    map[key]bool // by the fold's numbers
	dying     map[id]bool
	liveBytes int64
}

// row is a record that counts: the best one of its entry.
type row struct {
	used         uint32 // 0 is of no use to anyone
	pack, offset uint32
	size         uint32 // stored, about
	keep         bool   // wanted, by the choice that was made last
}

// pinnedUse is the use of what a root names.
const pinnedUse = math.MaxUint32

// newCollection reads what the ranking needs beside the index.
func (s *Store) newCollection(ctx context.Context, src *source) (*collection, error) {
	c := &collection{manifest: src.manifest, pinned: map[key]bool{}, dying: src.manifest.condemned()}
	err := s.list(ctx, touchDir, func(o Info, _ time.Time) { c.touchKeys = append(c.touchKeys, o.Key) })
	if err != nil {
		return nil, err
	}
	readable := c.touchKeys[:0]
	for _, k := range c.touchKeys {
		i, ok := idOf(touchDir, k)
		if !ok {
			continue
		}
		readable = append(readable, k)
		e, err := s.fetchEntries(ctx, touchDir, i)
		if err != nil {
			s.o.Log.Warn("s3 cache: a list of uses cannot be read and is skipped", "object", k, "error", err)
			continue
		}
		c.used = append(c.used, e)
	}
	c.touchKeys = readable
	for _, r := range src.manifest.Roots {
		e, err := s.fetchEntries(ctx, rootDir, r.ID)
		if err != nil { // without it nothing may be condemned
			return nil, fmt.Errorf("read root %q: %w", r.Name, err)
		}
		c.pins = append(c.pins, e)
	}
	return c, nil
}

// touches returns the uses by the fold's numbers, and numbers what is pinned.
func (c *collection) touches(f *fold) map[key]uint32 {
	used := map[key]uint32{}
	for _, e := range c.used {
		f.renumber(e)
		for i := range e.all {
			used[e.all[i].key] = max(used[e.all[i].key], e.all[i].used)
		}
	}
	for _, e := range c.pins {
		f.renumber(e)
		for i := range e.all {
			c.pinned[e.all[i].key] = true
		}
	}
	return used
}

// visit takes up the entries of a shard, sorted by key.
func (c *collection) visit(f *fold, all []entry) {
	f.mu.Lock()
	t := tables{f.packs, f.namespaces.all, f.principals.all}
	f.mu.Unlock()
	rows := make([]row, 0, len(all))
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].key == all[0].key {
			n++
		}
		rows = c.rank(&t, all[:n], rows)
		all = all[n:]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows = append(c.rows, rows...)
}

// rank appends the records of one entry. All but the best one are of no use.
func (c *collection) rank(t *tables, same []entry, rows []row) []row {
	packs, best := t.packs, -1
	for i := range same {
		if c.dying[packs[same[i].pack].id] {
			continue
		}
		if best < 0 || betterRecord(packs, &same[i], &same[best]) {
			best = i
		}
	}
	for i := range same {
		e := &same[i]
		if c.dying[packs[e.pack].id] {
			continue
		}
		w := row{pack: e.pack, offset: e.offset, size: uint32(min(t.stored(e), math.MaxUint32))}
		switch {
		case i != best:
		case c.pinned[e.key]:
			w.used = pinnedUse
		default:
			w.used = min(max(e.used, 1), pinnedUse-1)
		}
		rows = append(rows, w)
	}
	return rows
}

// tables are a fold's tables as far as they have grown.
type tables struct {
	packs                  []packRef
	namespaces, principals []string
}

// stored returns how many bytes a record takes.
func (t *tables) stored(e *entry) int64 {
	n := e.key.blobSize()
	if e.key.kind() == kindAction {
		n = int64(pointerFixed + len(t.principals[e.target.principal]))
	}
	return headerLen(t.namespaces[e.key.namespace()]) + blocksLen(n)
}

// betterRecord is the order in which nodes choose among records, too.
func betterRecord(packs []packRef, a, b *entry) bool {
	if a.key.kind() == kindAction && a.target.time != b.target.time {
		return a.target.time > b.target.time
	}
	return newer(&packs[a.pack], &packs[b.pack])
}

// choose returns the packs to be condemned: those without use to anyone, and those whose contents were used longest ago,
// until the rest is within the limits.
func (c *collection) choose(f *fold, m *manifest, o GCOptions, now uint32) []uint32 {
	slices.SortFunc(c.rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.pack, b.pack), cmp.Compare(a.offset, b.offset))
	})
	sizes := map[uint32]int64{}
	for _, w := range c.rows {
		if _, ok := sizes[w.pack]; !ok {
			sizes[w.pack] = f.packs[w.pack].size
			c.liveBytes += f.packs[w.pack].size
		}
	}
	need := int64(0)
	if o.MaxBytes > 0 {
		need = max(c.liveBytes-o.MaxBytes, 0)
	}
	old := uint32(0)
	if age := uint32(o.MaxAge.Seconds()); o.MaxAge > 0 && age < now {
		old = now - age
	}
	// Packs are condemned whole, so as many records have to go as make whole packs.
	for aim := need; ; aim += aim/4 + 1 {
		chosen, freed, all := c.try(sizes, aim, need, old)
		if freed >= need || all {
			return chosen
		}
	}
}

// try marks the records as unwanted that were used longest ago, for aim bytes, and chooses packs that free need bytes.
// all reports that nothing is left to be marked.
func (c *collection) try(sizes map[uint32]int64, aim, need int64, old uint32) (chosen []uint32, freed int64, all bool) {
	hot := map[uint32]int64{}
	var marked int64
	all = true
	for i := range c.rows {
		w := &c.rows[i]
		w.keep = false
		switch {
		case w.used == 0 || w.used < old:
		case marked < aim && w.used < pinnedUse:
			marked += int64(w.size)
		default:
			w.keep = true
			hot[w.pack] += int64(w.size)
			all = all && w.used == pinnedUse
		}
	}
	for _, p := range byWanted(sizes, hot) {
		// Nothing wanted: it goes. Half of it wanted: it goes if space is needed, what is wanted is copied.
		if hot[p] > 0 && (hot[p]*2 > sizes[p] || freed >= need && old == 0) {
			break
		}
		chosen = append(chosen, p)
		freed += sizes[p] - hot[p]
	}
	return chosen, freed, all
}

// byWanted orders packs by the share of them that is wanted.
func byWanted(sizes, hot map[uint32]int64) []uint32 {
	order := slices.Collect(maps.Keys(sizes))
	slices.SortFunc(order, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(hot[a]*1000/max(sizes[a], 1), hot[b]*1000/max(sizes[b], 1)), cmp.Compare(a, b))
	})
	return order
}

// wanted returns the records to be copied out of the chosen packs, with their last use.
func (c *collection) wanted(chosen []uint32) map[uint32]map[uint32]uint32 {
	in := map[uint32]bool{}
	for _, p := range chosen {
		in[p] = true
	}
	want := map[uint32]map[uint32]uint32{}
	for _, w := range c.rows {
		if !w.keep || !in[w.pack] {
			continue
		}
		if want[w.pack] == nil {
			want[w.pack] = map[uint32]uint32{}
		}
		want[w.pack][w.offset] = w.used
	}
	return want
}

// count reports the records in the chosen packs that nobody keeps.
func (c *collection) count(r *GCReport, f *fold, chosen []uint32) {
	in := map[uint32]bool{}
	for _, p := range chosen {
		in[p] = true
		r.CondemnedBytes += f.packs[p].size
	}
	r.CondemnedPacks = len(chosen)
	for _, w := range c.rows {
		if in[w.pack] && !w.keep {
			r.CondemnedRecords++
		}
	}
}
