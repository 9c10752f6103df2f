package tiered

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/pack"
)

// WriteBack acknowledges writes as soon as they are in a journal on this machine's disk, and brings them to the back
// behind the caller's back. What is in the journal survives a kill and is brought there after the next start; other nodes
// see it only then. A machine that is lost takes its journal with it: that is the price.
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
	w.wake.L = &w.mu
	err = errors.Join(
		journal.Blobs(ctx, func(ns string, d digest.Digest) bool {
			w.pending.blobs = append(w.pending.blobs, key{ns, d})
			return true
		}),
		journal.Actions(ctx, func(a pack.Action) bool {
			w.pending.actions = append(w.pending.actions, key{a.Namespace, a.Digest})
			return true
		}))
	if err != nil {
		stop()
		return nil, errors.Join(fmt.Errorf("write-back journal: %w", err), journal.Close())
	}
	go w.run(ctx)
	return w, nil
}

// Pending returns how many blobs and ActionResults the back does not have yet.
func (w *WriteBack) Pending() int { return w.journal.Stats().Entries }

// Close stops. What the back does not have yet stays in the journal.
func (w *WriteBack) Close() error {
	w.mu.Lock()
	w.closed = true
	w.wake.Broadcast()
	w.mu.Unlock()
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
		if err := w.bring(ctx, b); err != nil && ctx.Err() == nil {
			w.warn(fmt.Errorf("write-back: %d blobs and %d ActionResults wait for the bucket: %w", len(b.blobs), len(b.actions), err))
			w.mu.Lock()
			w.pending = batch{append(b.blobs, w.pending.blobs...), append(b.actions, w.pending.actions...)}
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

// bring stores a batch in the back and drops it from the journal.
func (w *WriteBack) bring(ctx context.Context, b batch) error {
	byNamespace := map[string][]digest.Digest{}
	for _, k := range b.blobs {
		byNamespace[k.namespace] = append(byNamespace[k.namespace], k.digest)
	}
	for ns, ds := range byNamespace {
		if err := w.bringBlobs(ctx, ns, ds); err != nil {
			return err
		}
	}
	for _, k := range b.actions {
		if err := w.bringAction(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// together is how many bytes of small blobs are brought to the back in one call.
const together = 8 << 20

func (w *WriteBack) bringBlobs(ctx context.Context, ns string, ds []digest.Digest) error {
	from, to, err := w.both(ns)
	if err != nil {
		return err
	}
	var blobs []cache.Blob
	size := 0
	flush := func() error {
		if err := cache.PutAll(ctx, to, blobs); err != nil {
			return err
		}
		blobs, size = nil, 0
		return nil
	}
	for _, d := range ds {
		if d.Size() > small {
			rc, err := from.Get(ctx, d)
			if errors.Is(err, cache.ErrNotFound) {
				continue // brought already, by an earlier batch that named it too
			}
			if err == nil {
				err = errors.Join(to.Put(ctx, d, rc), rc.Close())
			}
			if err != nil {
				return err
			}
			continue
		}
		b, err := cache.ReadBlob(ctx, from, d, small)
		if errors.Is(err, cache.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		blobs = append(blobs, cache.Blob{Digest: d, Data: b})
		if size += len(b); size > together {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return from.Drop(ds)
}

func (w *WriteBack) both(ns string) (*pack.Cache, *Cache, error) {
	from, err := w.journal.Namespace(ns)
	if err != nil {
		return nil, nil, err
	}
	to, err := w.cache(ns)
	return from, to, err
}

func (w *WriteBack) bringAction(ctx context.Context, k key) error {
	from, to, err := w.both(k.namespace)
	if err != nil {
		return err
	}
	w.changes.Lock()
	writes := w.count(k, 0)
	b, writer, err := from.ActionBytes(ctx, k.digest)
	w.changes.Unlock()
	if errors.Is(err, cache.ErrNotFound) {
		return nil
	}
	ar := new(repb.ActionResult)
	if err == nil {
		err = proto.Unmarshal(b, ar)
	}
	if err == nil {
		err = to.UpdateActionResult(cache.WithPrincipal(ctx, writer), k.digest, ar)
	}
	if err != nil {
		return err
	}
	w.changes.Lock()
	defer w.changes.Unlock()
	if w.count(k, 0) != writes {
		return nil // written again meanwhile, and pending again
	}
	if err := from.DropActions([]digest.Digest{k.digest}); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.writes, k)
	return nil
}

// count adds to the writes of an ActionResult and returns how many there were.
func (w *WriteBack) count(k key, more int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if more > 0 {
		w.writes[k] += more
	}
	return w.writes[k]
}

// Namespace returns the cache of a namespace: its tiers, with the journal before them.
func (w *WriteBack) Namespace(name string) (*Delayed, error) {
	journal, tiers, err := w.both(name)
	if err != nil {
		return nil, err
	}
	return &Delayed{Cache: tiers, w: w, name: name, journal: journal}, nil
}

// Delayed is one namespace with write-back.
type Delayed struct {
	*Cache
	w       *WriteBack
	name    string
	journal *pack.Cache
}

// Get implements cache.CAS.
func (c *Delayed) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return c.GetFrom(ctx, d, 0)
}

// GetFrom implements cache.RangeGetter.
func (c *Delayed) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := c.journal.GetFrom(ctx, d, offset)
	if errors.Is(err, cache.ErrNotFound) {
		return c.Cache.GetFrom(ctx, d, offset)
	}
	return rc, err
}

// GetZstd implements cache.ZstdGetter.
func (c *Delayed) GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := c.journal.GetZstd(ctx, d, offset)
	if errors.Is(err, cache.ErrNotFound) {
		return c.Cache.GetZstd(ctx, d, offset)
	}
	return rc, err
}

// GetMany implements cache.BatchGetter.
func (c *Delayed) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	var far []int
	err := c.journal.GetMany(ctx, ds, func(i int, data []byte, err error) {
		if errors.Is(err, cache.ErrNotFound) {
			far = append(far, i)
			return
		}
		each(i, data, err)
	})
	if err != nil || len(far) == 0 {
		return err
	}
	ask := make([]digest.Digest, len(far))
	for i, j := range far {
		ask[i] = ds[j]
	}
	return c.Cache.GetMany(ctx, ask, func(i int, data []byte, err error) { each(far[i], data, err) })
}

// FindMissing implements cache.CAS.
func (c *Delayed) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	// First the journal: what leaves it in between is in the back by then.
	left, err := c.journal.FindMissing(ctx, ds)
	if err != nil || len(left) == 0 {
		return left, err
	}
	return c.Cache.FindMissing(ctx, left)
}

// Put implements cache.CAS.
func (c *Delayed) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if d.Size() <= small && !d.IsZero() {
		b, err := io.ReadAll(digest.NewReader(io.NopCloser(r), d))
		if err != nil {
			return fmt.Errorf("put blob %s: %w", d, err)
		}
		return c.PutMany(ctx, []cache.Blob{{Digest: d, Data: b}})
	}
	if c.w.journal.Stats().Bytes+d.Size() > c.w.journal.Stats().MaxBytes {
		return c.Cache.Put(ctx, d, r) // r can be read only once, so that it fits is asked before
	}
	if err := c.journal.Put(ctx, d, r); err != nil {
		return err
	}
	c.w.add(batch{blobs: []key{{c.name, d}}})
	return nil
}

// PutMany implements cache.BatchPutter.
func (c *Delayed) PutMany(ctx context.Context, blobs []cache.Blob) error {
	err := c.journal.PutMany(ctx, blobs)
	if errors.Is(err, cache.ErrFull) {
		return c.Cache.PutMany(ctx, blobs)
	}
	if err != nil {
		return err
	}
	var b batch
	for _, blob := range blobs {
		b.blobs = append(b.blobs, key{c.name, blob.Digest})
	}
	c.w.add(b)
	return nil
}

// GetActionResult implements cache.ActionCache.
func (c *Delayed) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	ar, err := c.journal.GetActionResult(ctx, action)
	if errors.Is(err, cache.ErrNotFound) {
		return c.Cache.GetActionResult(ctx, action)
	}
	return ar, err
}

// UpdateActionResult implements cache.ActionCache. A full journal is an error here: to pass it by would show other nodes
// a result before its blobs.
func (c *Delayed) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	k := key{c.name, action}
	c.w.changes.RLock()
	err := c.journal.UpdateActionResult(ctx, action, result)
	if err == nil {
		c.w.count(k, 1)
	}
	c.w.changes.RUnlock()
	if err != nil {
		return err
	}
	c.w.add(batch{actions: []key{k}})
	return nil
}
