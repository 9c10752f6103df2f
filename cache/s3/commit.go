package s3

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
)

const (
	// packSize is the size from which a pack is sent without waiting for more.
	packSize = 16 << 20
	// maxSmall is the largest blob that shares a pack with others.
	maxSmall = 256 << 10
	// packsAtOnce bounds the commits under way. All but one of them are of full packs.
	packsAtOnce = 3
	// maxPacks bounds the packs in memory, those under way included.
	maxPacks = 5
	// callersForget is for how long the number of callers is taken for what it will be.
	callersForget = time.Second
)

// item is a record to be written.
type item struct {
	header  header
	payload []byte
	pointer *pointer // of an action
	used    uint32   // 0 is now
	copied  bool     // out of another pack
}

type itemKey struct {
	namespace string
	digest    digest.Digest
}

// committer gathers records of all callers into packs. While one pack is under way the next one gathers; it leaves when
// as many callers have joined as lately took part, at the latest after the linger, or at once when it is full. So 16
// callers that each send one batch after the other share one commit a round, and one caller alone never waits.
type committer struct {
	s *Store

	mu       sync.Mutex
	gather   *batch
	full     []*batch
	under    int // under way
	expected int // callers
	last     time.Time
	took     time.Duration // the last commit
	pending  map[itemKey]*batch
	freed    chan struct{} // closed when a pack leaves memory
	closed   bool
}

var errClosed = errors.New("the store is closed")

// batch is a pack being filled.
type batch struct {
	pack    []byte
	items   []committed
	callers int
	late    bool // lingered long enough
	done    chan struct{}
	err     error
}

// committed is what remains of an item in the tail.
type committed struct {
	header  header
	pointer *pointer
	offset  uint32
	used    uint32
}

func newCommitter(s *Store) *committer {
	return &committer{s: s, pending: map[itemKey]*batch{}, freed: make(chan struct{})}
}

// commit writes groups of items, each group whole into one pack, and returns when all are durable. The payloads are
// copied at once. When ctx ends it returns without knowing the outcome.
func (c *committer) commit(ctx context.Context, groups [][]item) error {
	joined := map[*batch]bool{}
	for _, g := range groups {
		if err := c.add(ctx, g, joined); err != nil {
			return err
		}
	}
	c.mu.Lock()
	for b := range joined {
		b.callers++
	}
	c.start()
	c.mu.Unlock()
	for b := range joined {
		select {
		case <-b.done:
			if b.err != nil {
				return b.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// add puts a group into the pack that gathers. A single blob that is on its way already is waited for instead. A copy is
// not: the pack that it is to replace may be the very one that is on its way.
func (c *committer) add(ctx context.Context, group []item, joined map[*batch]bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.underWay(group); b != nil {
		joined[b] = true
		return nil
	}
	for c.gather == nil && c.under+len(c.full) >= maxPacks {
		freed := c.freed
		c.mu.Unlock()
		select {
		case <-freed:
			c.mu.Lock()
		case <-ctx.Done():
			c.mu.Lock()
			return ctx.Err()
		}
	}
	if c.closed {
		return errClosed
	}
	if c.gather == nil {
		c.open()
	}
	b := c.gather
	for i := range group {
		it := &group[i]
		b.items = append(b.items, committed{it.header, it.pointer, uint32(len(b.pack)), it.used})
		b.pack = appendRecord(b.pack, &it.header, it.payload)
		if it.header.kind == kindBlob {
			c.pending[itemKey{it.header.namespace, it.header.digest}] = b
		}
	}
	joined[b] = true
	if len(b.pack) >= packSize {
		c.full = append(c.full, b)
		c.gather = nil
		c.start()
	}
	return nil
}

func (c *committer) underWay(group []item) *batch {
	if len(group) != 1 || group[0].header.kind != kindBlob || group[0].copied {
		return nil
	}
	return c.pending[itemKey{group[0].header.namespace, group[0].header.digest}]
}

// open begins a pack.
func (c *committer) open() {
	b := &batch{done: make(chan struct{})}
	c.gather = b
	if c.s.now().Sub(c.last) > callersForget {
		c.expected = 0
	}
	if c.under == 0 {
		c.linger(b)
	}
}

// linger lets b leave when it has waited long enough for company: a quarter of what a commit takes, if that is longer than
// the linger, is well spent where everything is slow.
func (c *committer) linger(b *batch) {
	if c.s.o.Linger <= 0 {
		b.late = true
		return
	}
	time.AfterFunc(max(c.s.o.Linger, c.took/4), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		b.late = true
		c.start()
	})
}

// start sends what may leave; c.mu is held.
func (c *committer) start() {
	for len(c.full) > 0 && c.under < packsAtOnce {
		c.send(c.full[0])
		c.full = c.full[1:]
	}
	b := c.gather
	if b != nil && c.under == 0 && (b.late || c.expected > 0 && b.callers >= c.expected) {
		c.gather = nil
		c.send(b)
	}
}

func (c *committer) send(b *batch) {
	c.under++
	c.s.working.Go(func() {
		began := c.s.now()
		b.err = c.s.write(c.s.ctx, b)
		c.finish(b, c.s.now().Sub(began))
	})
}

// finish acknowledges a pack. Its callers are likely to come back at once: the next pack gives them the linger to join.
func (c *committer) finish(b *batch, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.under--
	for i := range b.items {
		k := itemKey{b.items[i].header.namespace, b.items[i].header.digest}
		if c.pending[k] == b {
			delete(c.pending, k)
		}
	}
	c.expected, c.last, c.took = b.callers, c.s.now(), min(took, time.Second)
	if c.gather != nil {
		c.expected += c.gather.callers
		if c.under == 0 {
			c.linger(c.gather)
		}
	}
	close(b.done)
	close(c.freed)
	c.freed = make(chan struct{})
	c.start()
}

// close waits for what is under way, and sends what gathers without waiting for more. Later commits fail.
func (c *committer) close() {
	c.mu.Lock()
	if c.gather != nil {
		c.gather.late = true
	}
	c.closed = true
	c.start()
	for c.under > 0 || c.gather != nil || len(c.full) > 0 {
		freed := c.freed
		c.mu.Unlock()
		<-freed
		c.mu.Lock()
		if c.gather != nil {
			c.gather.late = true
			c.start()
		}
	}
	c.mu.Unlock()
}
