package s3

import (
	"context"
	"errors"
	"fmt"
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

// add puts a group into the pack that gathers. A single blob that is on its way already is waited for instead.
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
	if len(group) != 1 || group[0].header.kind != kindBlob {
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

// write is the commit: the pack, then its tail, then the index of this node.
func (s *Store) write(ctx context.Context, b *batch) error {
	if err := s.probeCommit(ctx); err != nil {
		return err
	}
	began := s.now()
	i := newID()
	meta, err := s.bucket.Put(ctx, packDir+i.String(), b.pack)
	if err != nil {
		return fmt.Errorf("write a pack of %d records: %w", len(b.items), err)
	}
	return s.writeTail(ctx, packRef{i, int64(len(b.pack)), meta.Date.Unix()}, b.items, began)
}

// commitLimit is how long after its pack a tail may be written. It is no longer than what is condemned stays, and less
// than half the age at which a pack without a tail is swept, so that no tail that counts names a pack that is gone.
func (s *Store) commitLimit() time.Duration { return s.grace() }

// writeTail makes records of a pack part of the log. Its own clock tells the writer early, S3's dates tell everyone
// surely, that a commit took so long that its pack may be swept.
func (s *Store) writeTail(ctx context.Context, p packRef, items []committed, began time.Time) error {
	if p.date <= 0 {
		return fmt.Errorf("pack %s: the bucket's answers carry no Date", p.id)
	}
	e := tailOf(p, items, secondsOf(s.now()))
	sent := s.now()
	meta, err := s.bucket.Put(ctx, tailDir+p.id.String(), e.encode())
	if err != nil {
		return fmt.Errorf("write the tail of pack %s: %w", p.id, err)
	}
	if took := max(meta.Date.Sub(time.Unix(p.date, 0)), since(s.now(), began)); took > s.commitLimit()/2 {
		return fmt.Errorf("pack %s: the commit took %s and may not count: send the blobs again", p.id, took.Round(time.Second))
	}
	if took := since(s.now(), sent); took > maxAnswer {
		return fmt.Errorf("pack %s: the answer to its tail took %s, gc may have been there since: send the blobs again", p.id, took.Round(time.Second))
	}
	s.index.addOwn(p.id, e)
	s.wakeCompaction(int(s.count.tails.Add(1)))
	return nil
}

// maxAnswer is how old what an acknowledgement rests on may be. Deletion waits for Slack beyond the promise, so what is
// this old still leaves time for the answer to reach its client.
const maxAnswer = Slack / 2

// since returns how much later now is, by the clock that says more.
func since(now, then time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

// tailOf returns the index of one pack. Items without a time of use of their own were used at the given one.
func tailOf(p packRef, items []committed, used uint32) *entries {
	e := &entries{packs: []packRef{p}, all: make([]entry, 0, len(items))}
	spaces, principals := names{of: map[string]uint32{}}, names{of: map[string]uint32{}}
	for i := range items {
		it := &items[i]
		en := entry{
			key:    makeKey(spaces.number(it.header.namespace), it.header.kind, it.header.digest),
			offset: it.offset, used: used,
		}
		if it.used > 0 {
			en.used = it.used
		}
		if it.pointer != nil {
			en.target = target{it.pointer.result, it.pointer.time, principals.number(it.pointer.principal)}
		}
		e.all = append(e.all, en)
	}
	e.namespaces, e.principals = spaces.all, principals.all
	return e
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
