package pack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/durable"
)

// ErrClosed is returned for what comes after Close.
var ErrClosed = errors.New("the cache is closed")

// chunk is what one writer wants appended: whole records, with the items that the index gets when they are durable.
type chunk struct {
	data  []byte
	items []item // offsets count from the start of data
	names bool   // the records name new files: their names have to be durable, too
	done  func(error)
	// still says, when the chunk's turn has come, whether it is still wanted; nil means that it is. Nobody else changes
	// the index from then until the chunk is durable.
	still func() bool
}

// add appends a record to the chunk.
func (c *chunk) add(r record, payload ...[]byte) {
	at := uint32(len(c.data))
	c.data = appendRecord(c.data, r, payload...)
	r.length = uint32(len(c.data)) - at - headerSize
	var p []byte
	if r.kind&^ofAction == kindFile {
		p, c.names = payload[0], true
	}
	c.items = append(c.items, itemOf(r, 0, at, p))
}

// queue is where writers wait for the committer. What gathers while one commit is synced goes into the next.
type queue struct {
	mu     sync.Mutex
	wake   sync.Cond
	chunks []*chunk
	closed bool
}

func (q *queue) init() { q.wake.L = &q.mu }

func (q *queue) put(c *chunk) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.chunks = append(q.chunks, c)
	q.wake.Signal()
	return true
}

const (
	// maxCommit bounds what one commit writes.
	maxCommit = 32 << 20
	// linger is how long a commit waits for others where there were many just before: less than a sync takes.
	linger = 50 * time.Microsecond
)

// take waits for chunks and returns those that one commit can hold; false when the queue is closed and empty.
func (q *queue) take() ([]*chunk, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chunks) == 0 {
		if q.closed {
			return nil, false
		}
		q.wake.Wait()
	}
	return q.cut(), true
}

// more returns what has come since, without waiting for it.
func (q *queue) more() []*chunk {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cut()
}

// cut takes the chunks that one commit can hold. Its caller holds mu.
func (q *queue) cut() []*chunk {
	n, size := 0, 0
	for n < len(q.chunks) && (n == 0 || size+len(q.chunks[n].data) <= maxCommit) {
		size += len(q.chunks[n].data)
		n++
	}
	taken := q.chunks[:n:n]
	if q.chunks = q.chunks[n:]; len(q.chunks) == 0 {
		q.chunks = nil
	}
	return taken
}

// close refuses what comes later; false if that was so before.
func (q *queue) close() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	was := q.closed
	q.closed = true
	q.wake.Broadcast()
	return !was
}

// commit appends a chunk and returns when it is durable and visible.
func (s *Store) commit(c *chunk) error {
	if len(c.data) == 0 {
		return nil
	}
	done := make(chan error, 1)
	c.done = func(err error) { done <- err }
	if !s.queue.put(c) {
		return ErrClosed
	}
	return <-done
}

// committer is the one goroutine that writes to segments.
func (s *Store) committer() {
	defer close(s.closed)
	last := 0
	for {
		chunks, ok := s.queue.take()
		if !ok {
			return
		}
		if last > 2*len(chunks) {
			// Those who waited for the last commit are about to write again. Without this moment the first of them would
			// get a sync to himself and the others would wait for it.
			// (Go's own Sleep takes a millisecond for this where no other thread happens to be awake.)
			_ = unix.Nanosleep(&unix.Timespec{Nsec: linger.Nanoseconds()}, nil)
			chunks = append(chunks, s.queue.more()...)
		}
		last = len(chunks)
		chunks = slices.DeleteFunc(chunks, func(c *chunk) bool {
			stale := c.still != nil && !c.still()
			if stale {
				c.done(nil)
			}
			return stale
		})
		err := s.makeRoom(chunks)
		if err == nil {
			err = s.appendOrEvict(chunks)
		}
		for _, c := range chunks {
			c.done(err)
		}
		s.removeDoomed()
	}
}

// appendOrEvict appends. Others fill the disk, too: what is oldest makes room before what is new is refused.
func (s *Store) appendOrEvict(chunks []*chunk) error {
	err := s.append(chunks)
	for tries := 0; errors.Is(err, cache.ErrFull) && tries < 4 && s.evictable(0); tries++ {
		if freed, evictErr := s.evictOne(); !freed || evictErr != nil {
			return err
		}
		err = s.append(chunks)
	}
	return err
}

// append writes chunks to the segment that grows, syncs it, and makes the index follow.
func (s *Store) append(chunks []*chunk) error {
	if err := s.roll(); err != nil {
		return err
	}
	g := s.active
	start := g.size
	names := false
	var iov [][]byte
	n := int64(0)
	for _, c := range chunks {
		iov = append(iov, c.data)
		n += int64(len(c.data))
		names = names || c.names
	}
	err := g.write(iov, n)
	if err == nil {
		err = unix.Fdatasync(int(g.f.Fd()))
	}
	if err == nil && names {
		err = durable.SyncDir(filepath.Join(s.dir, "files"))
	}
	if err != nil {
		return s.failed(err)
	}
	s.stats.commits.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.size += n
	s.used.Add(n)
	at := uint32(start)
	for _, c := range chunks {
		for i := range c.items {
			it := &c.items[i]
			it.offset += at
			if !it.isFile() {
				it.loc = uint64(g.id)<<32 | uint64(it.offset)
			}
			s.apply(it)
			g.extra += it.stored()
			g.items = append(g.items, *it)
		}
		at += uint32(len(c.data))
	}
	return nil
}

// failed turns a failed write into an error. What it wrote is in doubt, also after it is tried again (a sync that failed
// once may say nothing the next time), so the segment ends before it and another one begins.
func (s *Store) failed(err error) error {
	g := s.active
	if cut := g.f.Truncate(g.size); cut == nil {
		_ = s.next()
	}
	return fmt.Errorf("write to the cache: %w", full(err))
}

// segmentBytes is how large segments get: small enough that evicting one is a small step, large enough that they are few.
func (s *Store) segmentBytes() int64 { return min(max(s.opts.MaxBytes/512, 4<<20), 1<<30) }

// roll begins a new segment when the one that grows is large enough.
func (s *Store) roll() error {
	if g := s.active; g.size < s.segmentBytes() && g.size+g.extra < 4*s.segmentBytes() {
		return nil
	}
	return s.next()
}

// next begins another segment, and seals the one that grew. That its index is written is not needed: it can be made again
// from the records.
func (s *Store) next() error {
	g := s.active
	if err := s.begin(g.id + 1); err != nil {
		return fmt.Errorf("write to the cache: %w", full(err))
	}
	g.trim()
	if err := s.writeIndex(g); err != nil {
		_ = os.Remove(s.segmentPath(g.id) + indexSuffix)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.items, g.sealed = nil, s.seconds()
	s.order = append(s.order, g.id)
	return nil
}

// writeAll writes the buffers one after the other at offset.
func writeAll(f *os.File, iov [][]byte, offset int64) error {
	const most = 1024 // IOV_MAX
	for len(iov) > 0 {
		n, err := unix.Pwritev(int(f.Fd()), iov[:min(len(iov), most)], offset)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("pwritev", err)
		}
		offset += int64(n)
		for n > 0 && n >= len(iov[0]) {
			n -= len(iov[0])
			iov = iov[1:]
		}
		if n > 0 {
			iov[0] = iov[0][n:]
		}
	}
	return nil
}

type counters struct {
	commits, evictedSegments, evicted, carried, hits, misses, damaged atomic.Int64
}
