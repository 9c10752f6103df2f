package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/s3"
)

// pin has a root hold a blob, at any time while gc runs. The model takes it as pinned if that succeeded, and as not pinned
// from when something else is tried with that root: whether it was done is then unknown.
func (cl *client) pin() {
	w, ctx := cl.w, context.Background()
	time.Sleep(cl.duration(0, 500*time.Millisecond))
	s, name := cl.anyStore()
	root, k := fmt.Sprint("root ", cl.roll(3)), blobKey{modelSpaces[0], universe[cl.roll(len(universe))].Digest}
	_ = s.Namespace(k.namespace).Put(ctx, k.digest, bytes.NewReader(modelByDigest[k.digest]))
	w.setPin(root, nil)
	err := s.AddRoot(ctx, k.namespace, root, []digest.Digest{k.digest})
	w.note("%s pins %s as %s: %v", name, k.digest.Short(), root, err)
	if err == nil {
		w.setPin(root, &k)
	}
}

func (cl *client) unpin(s *s3.Store) {
	root := fmt.Sprint("root ", cl.roll(3))
	cl.w.setPin(root, nil)
	err := s.RemoveRoot(context.Background(), modelSpaces[0], root)
	cl.w.note("unpins %s: %v", root, err)
}

func (w *world) setPin(root string, k *blobKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k == nil {
		delete(w.pins, root)
		return
	}
	w.pins[root] = *k
	w.tally.Pinned++
}

// askPinned asks some node for what is pinned, which is never missing.
func (cl *client) askPinned() {
	w := cl.w
	w.mu.Lock()
	pins := maps.Clone(w.pins)
	w.mu.Unlock()
	for _, root := range slices.Sorted(maps.Keys(pins)) {
		s, name := cl.anyStore()
		k := pins[root]
		missing, err := s.Namespace(k.namespace).FindMissing(context.Background(), []digest.Digest{k.digest})
		if err != nil {
			continue
		}
		if len(missing) > 0 {
			w.violated("%s says %s is missing, which is pinned as %s", name, k.digest.Short(), root)
			continue
		}
		w.promise(k, time.Now())
		w.get(s.Namespace(k.namespace), name, k)
	}
}

// letSleep has one node after the other miss what happens, for longer than what is condemned stays.
func (cl *client) letSleep(end time.Time) {
	w := cl.w
	for len(w.nodes) > 1 {
		condemned := max(s3.Freshness+w.retention+s3.Slack, w.limit)
		n, d := w.nodes[cl.roll(len(w.nodes))], cl.duration(condemned*5/4, 3*condemned)
		if time.Now().Add(d).After(end) {
			return
		}
		w.setAway(n, true)
		time.Sleep(d)
		w.setAway(n, false)
		cl.census(n)
		time.Sleep(cl.duration(0, w.retention))
	}
}

func (w *world) setAway(n *node, away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.away = away
	if !away {
		w.tally.Slept++
	}
}

func (w *world) isAway(n *node) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return n.away
}

// census asks a node for everything, and reads from it what it says is present.
func (cl *client) census(n *node) {
	w := cl.w
	w.mu.Lock()
	s := n.store
	w.mu.Unlock()
	for _, space := range modelSpaces {
		c := s.Namespace(space)
		missing, err := c.FindMissing(context.Background(), digests(universe))
		at := time.Now()
		if err != nil {
			continue
		}
		for _, b := range universe {
			if k := (blobKey{space, b.Digest}); !slices.Contains(missing, b.Digest) {
				w.promise(k, at)
				w.get(c, n.name, k)
			}
		}
	}
}
