package pack

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// load reads the segments' items, several at once, and makes the index from them in order.
func (s *Store) load(ids []uint32) error {
	type loaded struct {
		g   *segment
		ix  index
		err error
	}
	s.table.grow(s.expect(ids))
	results := make([]chan loaded, len(ids))
	for i := range ids {
		results[i] = make(chan loaded, 1)
	}
	go func() {
		var g errgroup.Group
		g.SetLimit(runtime.GOMAXPROCS(0) + 1)
		for i, id := range ids {
			g.Go(func() error {
				seg, ix, err := s.openSegment(id, i == len(ids)-1)
				results[i] <- loaded{seg, ix, err}
				return nil
			})
		}
	}()
	newest := uint32(0)
	var failed error
	for i := range ids {
		l := <-results[i]
		if l.err != nil {
			failed = errors.Join(failed, l.err)
			continue
		}
		s.segments[l.g.id] = l.g // so that it is closed, whatever became of the others
		if failed != nil {
			continue
		}
		s.order = append(s.order, l.g.id)
		s.used.Add(l.g.size)
		for it := range l.ix.items(l.g.id) {
			newest = max(newest, it.touch)
			if it.isFile() {
				s.carriedTwice(it, l.g.id)
			}
			s.apply(it)
		}
	}
	s.clock.notBefore(newest)
	return failed
}

// expect says how many entries there may be at most, going by the size of the indexes.
func (s *Store) expect(ids []uint32) int {
	n := int64(0)
	for _, id := range ids {
		if st, err := os.Stat(s.segmentPath(id) + indexSuffix); err == nil {
			n += st.Size() / itemSize
		}
	}
	return int(n)
}

// carriedTwice notes where the newer of two records of one file is: a crash came between carrying it over and removing
// the segment it was in. Only the newer one may decide when the file goes.
func (s *Store) carriedTwice(it *item, segment uint32) {
	r := it.ref()
	if e := s.table.find(&r); e != nil && e.isFile() && e.loc == it.loc {
		if s.carried == nil {
			s.carried = map[uint64]uint32{}
		}
		s.carried[it.loc] = segment
	}
}

// apply makes the index follow a record; files it no longer needs are removed. Its caller holds mu.
func (s *Store) apply(it *item) {
	switch it.kind {
	case kindTouch:
		r := it.ref()
		if e := s.table.find(&r); e != nil && e.touch < it.touch {
			atomic.StoreUint32(&e.touch, it.touch)
		}
	case kindGone:
		s.drop(it.ref())
	default:
		for int(uint16(it.sizeNS)) >= len(s.bytes) {
			s.bytes = append(s.bytes, 0)
		}
		if it.isFile() {
			s.releaseLocked(it.loc) // from here on it counts as used
		}
		s.used.Add(it.stored())
		s.kept.bytes += it.room()
		s.account(&it.entry, 1)
		if old := s.table.insert(it.entry); old.class != 0 {
			if s.promised(&old, it.touch) {
				s.kept.bytes -= old.room()
			}
			s.account(&old, -1)
			s.discard(&old, it.loc)
		}
	}
}

// drop removes an entry. Its caller holds mu.
func (s *Store) drop(r ref) {
	if old := s.table.remove(r); old.class != 0 {
		s.account(&old, -1)
		s.discard(&old, 0)
	}
}

func (s *Store) account(e *entry, sign int64) { s.bytes[uint16(e.sizeNS)] += sign * e.size() }

// discard removes the file of an entry that is no more, unless the entry in its place names the same.
func (s *Store) discard(e *entry, successor uint64) {
	if !e.isFile() {
		return
	}
	s.used.Add(-e.stored())
	if e.loc != successor { // else it was carried over from one segment to another
		s.doomed = append(s.doomed, s.filePath(e.loc))
	}
}

// removeDoomed removes the files of entries that are no more. It is called when the records that make them so are
// durable: else a crash could bring back an entry without its file. What can't be removed is swept at the next start.
func (s *Store) removeDoomed() {
	s.mu.Lock()
	doomed := s.doomed
	s.doomed = nil
	s.mu.Unlock()
	for _, path := range doomed {
		_ = os.Remove(path)
	}
}
