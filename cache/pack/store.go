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
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/durable"
)

// Options of a store.
type Options struct {
	// MaxBytes bounds what the store takes up on disk. It must be at least 64 MiB.
	MaxBytes int64
	// Retention is how long what was reported present must stay; 0 makes no promise, and evicts what was used longest ago.
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
	names    []string          // namespaces, by number
	doomed   []string          // files of entries that are no more, to be removed; see takeDoomed
	carried  map[uint64]uint32 // see carriedTwice

	active *segment // the committer's alone, but for its size and extra, under mu
	used   atomic.Int64

	queue  queue
	nextID atomic.Uint64 // of the next large blob's file
	kept   struct {      // the committer's: what was promised, when it was last counted
		at    time.Time
		bytes int64
	}
	stats  counters
	closed chan struct{}
}

// minBytes is the smallest limit that leaves room to work in.
const minBytes = 64 << 20

// Open opens the store in dir, which it makes if need be. No other process may have it open.
func Open(dir string, opts Options) (*Store, error) {
	if opts.MaxBytes < minBytes {
		return nil, fmt.Errorf("cache %s: a limit of %d bytes is too small, give it at least %d", dir, opts.MaxBytes, minBytes)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	for _, d := range []string{dir, filepath.Join(dir, "segments"), filepath.Join(dir, "files")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	s := &Store{dir: dir, opts: opts, table: newTable(), segments: map[uint32]*segment{}, closed: make(chan struct{})}
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
	if err := s.readNames(); err != nil {
		return err
	}
	ids, err := s.segmentIDs()
	if err != nil {
		return err
	}
	if err := s.load(ids); err != nil {
		return err
	}
	last := uint32(0)
	if len(ids) > 0 {
		last = ids[len(ids)-1]
	}
	s.removeDoomed()
	return s.begin(last + 1)
}

// load reads the segments' items, several at once, and makes the index from them in order.
func (s *Store) load(ids []uint32) error {
	type loaded struct {
		g  *segment
		ix index
	}
	s.table.grow(s.expect(ids))
	results := make([]chan loaded, len(ids))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	for i := range ids {
		results[i] = make(chan loaded, 1)
	}
	go func() {
		for i, id := range ids {
			g.Go(func() error {
				defer close(results[i])
				seg, ix, err := s.openSegment(id, i == len(ids)-1)
				if err == nil {
					results[i] <- loaded{seg, ix}
				}
				return err
			})
		}
	}()
	for i := range ids {
		l, ok := <-results[i]
		if !ok {
			return g.Wait()
		}
		s.segments[l.g.id] = l.g
		s.order = append(s.order, l.g.id)
		s.used.Add(l.g.size)
		for it := range l.ix.items(l.g.id) {
			if it.isFile() {
				s.carriedTwice(it, l.g.id)
			}
			s.apply(it)
		}
	}
	return g.Wait()
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
		s.used.Add(it.stored())
		s.account(&it.entry, 1)
		if old := s.table.insert(it.entry); old.class != 0 {
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

// begin makes a new segment the one that grows.
func (s *Store) begin(id uint32) error {
	f, err := os.OpenFile(s.segmentPath(id), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Join(s.dir, "segments")); err != nil {
		return errors.Join(err, f.Close())
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

// seconds is the time as records hold it.
func (s *Store) seconds() uint32 { return uint32(max(0, s.opts.Now().Unix())) }

// names maps namespaces to numbers. They are few, and never forgotten: records hold the number.
const namesFile = "namespaces.json"

func (s *Store) readNames() error {
	b, err := os.ReadFile(filepath.Join(s.dir, namesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s.names)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", namesFile, err)
	}
	s.bytes = make([]int64, len(s.names))
	return nil
}

// number returns a namespace's number, a new one if need be.
func (s *Store) number(name string) (uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.names, name); i >= 0 {
		return uint16(i), nil
	}
	if len(s.names) == 1<<16 {
		return 0, fmt.Errorf("namespace %q: the store has %d already, more than it can tell apart", name, len(s.names))
	}
	names := append(slices.Clone(s.names), name)
	b, err := json.Marshal(names)
	if err != nil {
		return 0, err
	}
	if err := durable.WriteFile(filepath.Join(s.dir, namesFile), b, 0o600); err != nil {
		return 0, err
	}
	s.names = names
	for len(s.bytes) < len(names) {
		s.bytes = append(s.bytes, 0)
	}
	return uint16(len(names) - 1), nil
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
