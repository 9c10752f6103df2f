package s3

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
)

// Slack is what deletion waits for beyond Freshness and the retention: for answers that were long on their way, and for
// clocks of S3's own machines that differ.
const Slack = 10 * time.Minute

// Store is the bucket as one node sees it. It is safe for concurrent use.
type Store struct {
	o       Options
	bucket  *counted
	index   *index
	commits *committer
	touches touches
	count   counters

	ctx     context.Context // ends at Close
	cancel  context.CancelFunc
	working sync.WaitGroup

	looking      flight
	validating   flight
	compacting   flight
	loading      singleflight.Group
	manifestLock chan struct{} // held by whoever reads the manifest
	sending      sync.Map      // large blobs on their way, by itemKey
	parts        *semaphore.Weighted
	lastTick     atomic.Int64
	wake         chan struct{} // of compaction
	probed       atomic.Pointer[error]

	jitterMu sync.Mutex
	random   *rand.Rand
}

// counters are what Stats reports.
type counters struct {
	hits, looks, refreshes, compactions, evictions, aside, tails atomic.Int64
}

// Open connects to the bucket, which must exist, and reads the manifest and the tails.
func Open(ctx context.Context, o Options) (*Store, error) {
	b, err := NewClient(ctx, o)
	if err != nil {
		return nil, err
	}
	return OpenBucket(ctx, b, o)
}

// OpenBucket is Open on any Bucket.
func OpenBucket(ctx context.Context, b Bucket, o Options) (*Store, error) {
	s := newStore(b, o)
	if err := s.begin(ctx); err != nil {
		s.cancel()
		s.working.Wait()
		return nil, fmt.Errorf("open the bucket %s: %w", o.Bucket, err)
	}
	if !s.o.Manual {
		s.working.Go(s.background)
		s.working.Go(s.compactor)
	}
	return s, nil
}

func newStore(b Bucket, o Options) *Store {
	s := &Store{
		o: o.withDefaults(), bucket: newCounted(b), index: newIndex(),
		touches:      touches{all: map[touched]uint32{}, full: make(chan struct{}, 1)},
		manifestLock: make(chan struct{}, 1),
		parts:        semaphore.NewWeighted(partMemory),
		wake:         make(chan struct{}, 1),
	}
	seed := newID()
	s.random = rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:])))
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.commits = newCommitter(s)
	return s
}

// begin makes the manifest if there is none, records the promise in it, and reads the log.
func (s *Store) begin(ctx context.Context) error {
	err := s.readManifest(ctx)
	if errors.Is(err, ErrNoObject) {
		err = s.initialize(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.promise(ctx); err != nil {
		return err
	}
	return s.look(ctx)
}

// initialize makes the first manifest of an empty bucket. Packs without a manifest mean that the index was lost: to begin
// a new one would let gc sweep them all.
func (s *Store) initialize(ctx context.Context) error {
	p, err := s.bucket.List(ctx, packDir, "")
	if err != nil {
		return err
	}
	if len(p.Objects) > 0 {
		// Another node may have made it since: there are no packs before there is a manifest.
		if err := s.readManifest(ctx); !errors.Is(err, ErrNoObject) {
			return err
		}
		return fmt.Errorf("%w: there are packs, and no manifest", ErrIndexLost)
	}
	if s.o.ReadOnly {
		return errors.New("nothing was ever stored in it, and it was opened for reading only")
	}
	m := &manifest{Version: manifestVersion, Generation: 1, Swap: newID(), Retention: seconds(s.o.Retention)}
	err = s.swapManifest(ctx, m, "")
	if errors.Is(err, ErrNoConditionalPut) {
		err = s.putFirst(ctx, m) // it will be the only one: whoever would swap it refuses to
	}
	if err != nil && !errors.Is(err, ErrConflict) {
		return err
	}
	err = s.readManifest(ctx)
	return err
}

func (s *Store) putFirst(ctx context.Context, m *manifest) error {
	b, err := m.encode()
	if err == nil {
		_, err = s.bucket.Put(ctx, manifestKey, b)
	}
	return err
}

// promise raises the retention that the manifest records to this node's, before this node answers anything.
func (s *Store) promise(ctx context.Context) error {
	if m, _, _ := s.index.snapshot(); s.o.ReadOnly && s.o.Retention > m.retention() {
		return fmt.Errorf("%w: it promises %s and not the %s that were asked for", errReadOnly, m.retention(), s.o.Retention)
	}
	if s.o.ReadOnly {
		return nil
	}
	err := s.edit(ctx, func(m *manifest) (bool, error) {
		want := seconds(s.o.Retention)
		if m.Retention >= want {
			return false, nil
		}
		m.Retention = want
		return true, nil
	})
	if errors.Is(err, ErrNoConditionalPut) {
		return nil // nothing is ever deleted
	}
	return err
}

func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// grace is how long what is condemned stays: until no node may call it present, then for the promise, and some more. It
// is no less than commitLimit, so that a tail that comes when its pack was deleted is void.
func (s *Store) grace() time.Duration {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	keep := s.o.Retention
	if s.index.manifest != nil {
		keep = max(keep, s.index.manifest.retention())
	}
	return max(Freshness+keep+Slack, s.o.commitLimit)
}

// jitter returns a part of d, so that nodes that saw the same thing at once do not act on it at once.
func (s *Store) jitter(d time.Duration) time.Duration {
	s.jitterMu.Lock()
	defer s.jitterMu.Unlock()
	return time.Duration(s.random.Int64N(int64(d)))
}

func (s *Store) now() time.Time { return s.o.Now() }

// tick returns a time that is later than all it returned before.
func (s *Store) tick() int64 {
	for {
		last := s.lastTick.Load()
		next := max(s.now().UnixNano(), last+1)
		if s.lastTick.CompareAndSwap(last, next) {
			return next
		}
	}
}

// Namespace returns the cache of that name, which need not exist before something is put.
func (s *Store) Namespace(name string) *Cache { return &Cache{s: s, name: name} }

// Refresh looks at the bucket now: tails of other nodes, then the manifest.
func (s *Store) Refresh(ctx context.Context) error { return s.look(ctx) }

// Close ends the work in the background and writes the touches that are left. Puts under way end first.
func (s *Store) Close() error {
	s.commits.close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := s.flushTouches(ctx)
	s.cancel()
	s.working.Wait()
	return err
}

// background keeps the view fresh, so that lookups need not wait for it. It ends with the Store.
func (s *Store) background() {
	refresh := time.NewTicker(Freshness / 3)
	defer refresh.Stop()
	flush := time.NewTicker(10 * time.Minute)
	defer flush.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-refresh.C:
			s.report("refresh", s.look(s.ctx))
		case <-s.touches.full:
			s.report("write touches", s.flushTouches(s.ctx))
		case <-flush.C:
			s.report("write touches", s.flushTouches(s.ctx))
		}
	}
}

// compactor folds tails when there are enough.
func (s *Store) compactor() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
			s.report("compact", s.compactLater(s.ctx))
		}
	}
}

func (s *Store) report(what string, err error) {
	if err != nil && s.ctx.Err() == nil {
		s.o.Log.Warn("s3 cache: "+what+" failed and is tried again", "error", err)
	}
}
