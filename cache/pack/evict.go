package pack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/pexpress/pexpress/cache/durable"
)

// evictOne removes the oldest segment, always the oldest: what it records of uses and removals is about older ones. It
// carries over what must stay or was used since, and reports false when there is nothing to remove.
func (s *Store) evictOne() (bool, error) {
	s.mu.RLock()
	order := slices.Clone(s.order)
	s.mu.RUnlock()
	if len(order) > 0 {
		return true, s.evict(order[0])
	}
	if s.active.size == 0 {
		return false, nil
	}
	last := s.active.id
	if err := s.next(); err != nil {
		return false, err
	}
	return true, s.evict(last)
}

// evict removes the oldest segment.
func (s *Store) evict(id uint32) error {
	s.mu.RLock()
	g := s.segments[id]
	s.mu.RUnlock()
	ix, err := s.readIndex(g)
	if err != nil {
		// It was read or written before: make it again from the records.
		again := &segment{id: g.id, f: g.f}
		if again.items, err = scan(again, true); err != nil {
			return fmt.Errorf("evict segment %d: %w", id, err)
		}
		ix = again.index()
	}
	stay, gone := s.sort(g, ix)
	c := &chunk{}
	for _, it := range stay {
		err := s.carry(c, g, it)
		if errors.Is(err, errRecord) {
			gone = append(gone, it) // it can't be read, here or there
		} else if err != nil {
			return fmt.Errorf("evict segment %d: %w", id, err)
		}
	}
	if len(c.data) > 0 {
		if err := s.append([]*chunk{c}); err != nil {
			return err
		}
	}
	s.stats.carried.Add(int64(len(c.items)))
	s.stats.evictedSegments.Add(1)
	s.mu.Lock()
	for i := range gone {
		r := gone[i].ref()
		// Promised in the meantime? Then its touch is in the queue behind this, and will find that it has gone.
		if e := s.table.find(&r); e != nil && e.loc == gone[i].loc {
			s.drop(r)
			s.stats.evicted.Add(1)
		}
	}
	for it := range ix.items(id) {
		if it.isFile() {
			delete(s.carried, it.loc) // from here on there is one record of the file
		}
	}
	delete(s.segments, id)
	s.order = slices.DeleteFunc(s.order, func(o uint32) bool { return o == id })
	s.used.Add(-g.size)
	s.mu.Unlock()
	// The index goes first: without it a segment is read from its records, without its segment an index is nothing.
	err = errors.Join(g.close(), os.Remove(s.segmentPath(id)+indexSuffix), os.Remove(s.segmentPath(id)),
		durable.SyncDir(filepath.Join(s.dir, "segments")))
	if err == nil {
		s.removeDoomed()
	}
	return err
}

// sort says which of a segment's live items stay.
func (s *Store) sort(g *segment, ix index) (stay, gone []item) {
	now, kept := s.seconds(), int64(0)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for it := range ix.items(g.id) {
		r := it.ref()
		e := s.table.find(&r)
		if newer, ok := s.carried[it.loc]; ok && it.isFile() && newer != g.id {
			continue
		}
		if it.kind == kindTouch || it.kind == kindGone || e == nil || e.loc != it.loc {
			continue
		}
		size := e.room()
		keep := s.promised(e, now)
		if s.opts.Retention == 0 {
			// Used again since it was written, and not a moment later by whoever wrote it. At most half stays, or a store
			// that is read all over would be copied round and round.
			keep = e.touched() > it.touch+60 && kept+size <= (g.size+g.extra)/2
		}
		if keep {
			it.touch = e.touched()
			stay, kept = append(stay, *it), kept+size
		} else {
			gone = append(gone, *it)
		}
	}
	return stay, gone
}

// carry adds a live item of an old segment to a chunk.
func (s *Store) carry(c *chunk, g *segment, it item) error {
	r, payload, err := g.read(int64(it.offset), it.payloadLength(), nil)
	if err != nil {
		return err
	}
	r.time = it.touch
	if s.opts.Retention == 0 {
		r.time = s.seconds()
	}
	c.add(r, payload)
	return nil
}

// payloadLength is what follows the header of the item's record.
func (it *item) payloadLength() int64 {
	if it.isFile() {
		return filePayload
	}
	return it.size()
}

// sweep removes files that no entry names, left behind by uploads that a crash ended. Those of this run are not among
// them: their numbers are larger.
func (s *Store) sweep() {
	first := s.nextID.Load() >> 32 << 32
	live := map[uint64]bool{}
	s.mu.RLock()
	s.table.all(func(e *entry) bool {
		if e.isFile() {
			live[e.loc] = true
		}
		return true
	})
	s.mu.RUnlock()
	top := filepath.Join(s.dir, "files")
	dirs, _ := os.ReadDir(top)
	for _, dir := range dirs {
		files, _ := os.ReadDir(filepath.Join(top, dir.Name()))
		for _, f := range files {
			id, err := strconv.ParseUint(f.Name(), 16, 64)
			if err == nil && id < first && !live[id] {
				_ = os.Remove(filepath.Join(top, dir.Name(), f.Name()))
			}
		}
	}
}
