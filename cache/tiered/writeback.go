package tiered

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/pack"
)

// WriteBack acknowledges writes as soon as they are in a journal on this machine's disk, and brings them to the back
// behind the caller's back. What is in the journal survives a kill and is brought there after the next start; other nodes
// see it only then. A machine that is lost takes its journal with it: that is the price.
//
// What the back refuses, for want of room or as invalid, stays in the journal, holds up nothing else but the ActionResults
// that name it, and is tried again. What the journal itself has lost is told. See [WriteBack.Trouble].
//
// The journal is a store of its own in which nothing may be evicted. When it is full, writes wait for the back as they
// do without it.
type WriteBack struct {
	journal *pack.Store
	cache   func(namespace string) (*Cache, error)
	warn    func(error)

	mu      sync.Mutex
	wake    sync.Cond
	pending batch
	closed  bool
	stop    context.CancelFunc
	done    chan struct{}

	// changes is held for reading while an ActionResult is written to the journal, and for writing while one is read from it
	// or dropped: a newer one must not be dropped with an older one.
	changes sync.RWMutex
	writes  map[key]int // of each pending ActionResult, under mu

	trouble trouble
}

type key struct {
	namespace string
	digest    digest.Digest
}

// batch is what goes to the back together, blobs before the ActionResults that name them.
type batch struct{ blobs, actions []key }

func (b *batch) empty() bool { return len(b.blobs)+len(b.actions) == 0 }

// OpenWriteBack opens the journal in dir, which may grow to max bytes, and begins to bring what is in it to the back.
// The function returns the tiers of a namespace.
func OpenWriteBack(dir string, max int64, tiers func(namespace string) (*Cache, error), warn func(error)) (*WriteBack, error) {
	// Nothing is ever old enough to be evicted: only what was dropped makes room.
	journal, err := pack.Open(dir, pack.Options{MaxBytes: max, Retention: math.MaxInt32 * time.Second / 2})
	if err != nil {
		return nil, fmt.Errorf("write-back journal: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &WriteBack{journal: journal, cache: tiers, warn: warn, writes: map[key]int{}, stop: stop, done: make(chan struct{})}
	w.trouble.refused, w.trouble.lost = map[entry]error{}, map[entry]error{}
	w.wake.L = &w.mu
	if err := w.list(ctx); err != nil {
		stop()
		return nil, errors.Join(fmt.Errorf("write-back journal: %w", err), journal.Close())
	}
	go w.run(ctx)
	return w, nil
}

// list makes all that is in the journal pending.
func (w *WriteBack) list(ctx context.Context) error {
	err := errors.Join(
		w.journal.Blobs(ctx, func(ns string, d digest.Digest) bool {
			w.pending.blobs = append(w.pending.blobs, key{ns, d})
			return true
		}),
		w.journal.Actions(ctx, func(a pack.Action) bool {
			w.pending.actions = append(w.pending.actions, key{a.Namespace, a.Digest})
			return true
		}))
	if listed := len(w.pending.blobs) + len(w.pending.actions); err != nil || listed == w.journal.Stats().Entries {
		return err
	}
	rep, err := w.journal.Verify(ctx) // which are the others?
	for _, what := range rep.Damaged {
		w.loseUnnamed(what)
	}
	return err
}

// Pending returns how many blobs and ActionResults the back does not have yet.
func (w *WriteBack) Pending() int { return w.journal.Stats().Entries }

// Close stops. What the back does not have yet stays in the journal.
func (w *WriteBack) Close() error {
	w.mu.Lock()
	w.closed = true
	w.wake.Broadcast()
	w.mu.Unlock()
	w.trouble.stop()
	w.stop()
	<-w.done
	return w.journal.Close()
}

func (w *WriteBack) add(b batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending.blobs = append(w.pending.blobs, b.blobs...)
	w.pending.actions = append(w.pending.actions, b.actions...)
	w.wake.Broadcast()
}

// run brings batches to the back, one after the other, until each is there.
func (w *WriteBack) run(ctx context.Context) {
	defer close(w.done)
	const first, longest = 100 * time.Millisecond, 30 * time.Second
	pause := first
	for {
		w.mu.Lock()
		for w.pending.empty() && !w.closed {
			w.wake.Wait()
		}
		b := w.pending
		w.pending = batch{}
		closed := w.closed
		w.mu.Unlock()
		if closed {
			return
		}
		if left, err := w.bring(ctx, b); err != nil && ctx.Err() == nil {
			w.warn(fmt.Errorf("write-back: %d blobs and %d ActionResults wait for the bucket: %w", len(left.blobs), len(left.actions), err))
			w.mu.Lock()
			w.pending = batch{append(left.blobs, w.pending.blobs...), append(left.actions, w.pending.actions...)}
			w.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, longest)
			continue
		}
		pause = first
	}
}

// Namespace returns the cache of a namespace: its tiers, with the journal before them.
func (w *WriteBack) Namespace(name string) (*Delayed, error) {
	tiers, err := w.cache(name)
	if err != nil {
		return nil, err
	}
	return &Delayed{Cache: tiers, w: w, name: name, journal: LazyNamespace(w.journal, name)}, nil
}
