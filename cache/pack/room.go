package pack

import (
	"fmt"
	"time"

	"github.com/pexpress/pexpress/cache"
)

// makeRoom evicts until the chunks fit. Only the committer calls it. The files that the chunks name are counted since they
// were written; see hold.
func (s *Store) makeRoom(chunks []*chunk) error {
	need := int64(0)
	for _, c := range chunks {
		need += int64(len(c.data))
	}
	return s.room(need)
}

// room evicts until need more bytes fit. Only the committer calls it.
func (s *Store) room(need int64) error {
	if s.taken()+need <= s.opts.MaxBytes {
		return nil
	}
	if !s.evictable(need) {
		return s.noRoom()
	}
	// Once round the store is enough: what is carried over is behind what was there.
	s.mu.RLock()
	rounds := len(s.order) + 1
	s.mu.RUnlock()
	for ; s.taken()+need > s.opts.MaxBytes; rounds-- {
		freed, err := s.evictOne()
		if err != nil {
			return err
		}
		if !freed || rounds == 0 {
			return s.noRoom()
		}
	}
	return nil
}

// taken is what is stored and what is held for uploads under way.
func (s *Store) taken() int64 { return s.used.Load() + s.held.Load() }

func (s *Store) noRoom() error {
	if s.opts.Retention > 0 {
		return fmt.Errorf("%w: most of its %d bytes were written or found present within the last %s, and are promised for that long: raise the limit",
			cache.ErrFull, s.opts.MaxBytes, 3*s.opts.Retention/2)
	}
	return fmt.Errorf("%w: what is to be written, with the uploads under way, is larger than its limit of %d bytes: raise the limit",
		cache.ErrFull, s.opts.MaxBytes)
}

// holdAhead is how much more than it needs an upload holds, so that it need not ask for every frame.
const holdAhead = 4 << 20

// hold sets room aside for the file of an upload under way, n bytes in all: else many uploads at one time would fill the
// disk before the first of them is counted. What cannot fit is refused here, where it fails nobody else's write.
func (s *Store) hold(id uint64, n int64) error {
	// With room to spare the committer, which may be waiting for a sync, is not asked.
	if s.tryHold(id, n, maxCommit) {
		return nil
	}
	return s.onCommitter(func() error {
		s.mu.RLock()
		more := n - s.uploads[id]
		s.mu.RUnlock()
		err := s.room(more)
		for err == nil && !s.tryHold(id, n, 0) {
			err = s.room(more) // another upload was quicker
		}
		return err
	})
}

// tryHold holds n bytes for a file if that leaves spare bytes free.
func (s *Store) tryHold(id uint64, n, spare int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	more := n - s.uploads[id]
	if s.taken()+more+spare > s.opts.MaxBytes {
		return false
	}
	s.uploads[id] = n
	s.held.Add(more)
	return true
}

// release gives back what is held for a file.
func (s *Store) release(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked(id)
}

func (s *Store) releaseLocked(id uint64) {
	s.held.Add(-s.uploads[id])
	delete(s.uploads, id)
}

// onCommitter has f called by the committer, between commits.
func (s *Store) onCommitter(f func() error) error {
	var err error
	done := make(chan struct{})
	c := &chunk{
		still: func() bool { err = f(); return false },
		done:  func(error) { close(done) },
	}
	if !s.queue.put(c) {
		return ErrClosed
	}
	<-done
	return err
}

// commitAlone commits a chunk so that it alone fails when there is no room for it, and not those that share its commit.
func (s *Store) commitAlone(c *chunk) error {
	var refused error
	c.still = func() bool {
		refused = s.room(int64(len(c.data)))
		return refused == nil
	}
	if err := s.commit(c); err != nil {
		return err
	}
	return refused
}

// worth is the least part of the store, one in so many bytes, that eviction must be able to free: else it would copy most
// of the store for each little room it makes.
const worth = 4

// evictable reports whether need more bytes can be had, with the promise kept.
func (s *Store) evictable(need int64) bool {
	if s.opts.Retention == 0 {
		return need+s.held.Load() <= s.opts.MaxBytes
	}
	if now := s.opts.Now(); now.Sub(s.kept.at).Abs() > time.Second {
		s.kept.at, s.kept.bytes = now, s.promisedBytes()
	}
	return s.kept.bytes+s.held.Load()+need <= s.opts.MaxBytes-s.opts.MaxBytes/worth
}

// promisedBytes is what the entries take up that must stay.
func (s *Store) promisedBytes() int64 {
	now, total := s.seconds(), int64(0)
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.table.all(func(e *entry) bool {
		if s.promised(e, now) {
			total += e.room()
		}
		return true
	})
	return total
}

// room is what an entry takes up on disk.
func (e *entry) room() int64 {
	if e.isFile() {
		return headerSize + filePayload + e.stored()
	}
	return headerSize + e.size()
}

// promised reports whether an entry was reported present so lately that it must stay. A use is recorded when the last
// one recorded is half of the retention ago, so the last one answered can be that much later than the one recorded.
func (s *Store) promised(e *entry, now uint32) bool {
	r := int64(s.opts.Retention / time.Second)
	return r > 0 && int64(e.touched())+r+r/2+1 >= int64(now)
}
