// Package pack is the disk tier of a cache server: one process owns it, and it is made for millions of blobs and many
// writers. (What a command line and a codeserver embed is package disk, which any number of processes may share.)
//
// Small blobs and ActionResults are records in segments, files that are only ever appended to. All writers that are
// ready at one time share one write and one sync, so an acknowledged blob is durable and costs a fraction of a sync. A
// large blob has a file of its own, of independently compressed and checksummed frames. The index is in memory, 45 to 70
// bytes an entry; each segment that is full leaves an index file beside it, so that a start reads a few large files and
// scans at most the one segment that a crash left open. What a record says is checked by a checksum on every read, and
// the whole hash is compared.
//
// Eviction removes the oldest segment as a whole and carries over what was used since: its cost per blob does not grow
// with the number of blobs. With Options.Retention the store keeps a promise: a digest that FindMissing or
// GetActionResult reported present stays readable for at least that long, over restarts and SIGKILL. For this a use is
// itself recorded durably before it is answered, at most once per half of that time and entry. When nothing may be
// evicted the store refuses writes with cache.ErrFull rather than break the promise.
package pack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/durable"
)

// Options of a store.
type Options struct {
	// MaxBytes bounds what the store takes up on disk. It must be at least 64 MiB.
	MaxBytes int64
	// Retention is how long what was reported present must stay, two seconds or more; 0 makes no promise, and evicts what was
	// used longest ago.
	Retention time.Duration
	// Now tells the time; nil means time.Now.
	Now func() time.Time
}

// Store is an open store.
type Store struct {
	dir  string
	opts Options
	lock *os.File

	mu       sync.RWMutex // guards what follows
	table    *table
	segments map[uint32]*segment
	order    []uint32          // sealed segments, oldest first
	bytes    []int64           // live bytes, by namespace
	doomed   []string          // files of entries that are no more, to be removed; see takeDoomed
	carried  map[uint64]uint32 // see carriedTwice
	uploads  map[uint64]int64  // what large uploads under way may take up, by the id of their file; see hold

	active *segment     // the committer's alone, but for its size and extra, under mu
	used   atomic.Int64 // by what is stored
	held   atomic.Int64 // the sum of uploads

	names  names
	clock  timeline
	queue  queue
	nextID atomic.Uint64 // of the next large blob's file
	kept   struct {      // the committer's: what was promised, when it was last counted
		at    time.Time
		bytes int64 // with what was written since
	}
	stats  counters
	closed chan struct{}
}

// minBytes is the smallest limit that leaves room to work in.
const minBytes = 64 << 20

// minRetention is the shortest promise: uses are recorded in whole seconds, once in half of it.
const minRetention = 2 * time.Second

// Open opens the store in dir, which it makes if need be. No other process may have it open.
func Open(dir string, opts Options) (*Store, error) {
	if opts.MaxBytes < minBytes {
		return nil, fmt.Errorf("cache %s: a limit of %d bytes is too small, give it at least %d", dir, opts.MaxBytes, minBytes)
	}
	if opts.Retention != 0 && opts.Retention < minRetention {
		return nil, fmt.Errorf("cache %s: a retention of %s is too short, give it at least %s, or 0 for none", dir, opts.Retention, minRetention)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	for _, d := range []string{dir, filepath.Join(dir, "segments"), filepath.Join(dir, "files")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	s := &Store{dir: dir, opts: opts, table: newTable(), segments: map[uint32]*segment{}, uploads: map[uint64]int64{}, closed: make(chan struct{})}
	s.names.path = filepath.Join(dir, namesFile)
	s.clock.begin(opts.Now)
	s.queue.init()
	if err := s.open(); err != nil {
		s.closeFiles()
		return nil, fmt.Errorf("cache %s: %w", dir, err)
	}
	go s.committer()
	go s.sweep()
	return s, nil
}

func (s *Store) open() (err error) {
	if s.lock, err = os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another process has it open: stop that one, or use another directory (%w)", err)
	}
	if err := s.names.read(); err != nil {
		return err
	}
	ids, err := s.segmentIDs()
	if err != nil {
		return err
	}
	if err := s.load(ids); err != nil {
		return err
	}
	if len(s.bytes) > s.names.count() {
		return fmt.Errorf("%s names %d namespaces, and what is stored is of %d: restore that file, or remove the whole directory", s.names.path, s.names.count(), len(s.bytes))
	}
	last := uint32(0)
	if len(ids) > 0 {
		last = ids[len(ids)-1]
	}
	s.removeDoomed()
	return s.begin(last + 1)
}

// begin makes a new segment the one that grows.
func (s *Store) begin(id uint32) error {
	f, err := os.OpenFile(s.segmentPath(id), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Join(s.dir, "segments")); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name())) // or it would be in the way when this is tried again
	}
	g := &segment{id: id, f: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active, s.segments[id] = g, g
	if s.nextID.Load() == 0 {
		s.nextID.Store(uint64(id)<<32 + 1)
	}
	return nil
}

// Close ends the store: what was accepted is written, what comes later is refused.
func (s *Store) Close() error {
	if !s.queue.close() {
		return nil
	}
	<-s.closed
	err := s.seal()
	s.closeFiles()
	return err
}

// seal writes the index of the segment that grows, so that the next start need not scan it.
func (s *Store) seal() error {
	g := s.active
	if g.size == 0 {
		return errors.Join(os.Remove(s.segmentPath(g.id)))
	}
	g.trim()
	return s.writeIndex(g)
}

func (s *Store) closeFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.segments {
		_ = g.close() // all that was acknowledged is synced
	}
	s.segments = map[uint32]*segment{}
	if s.lock != nil {
		s.lock.Close()
	}
}
