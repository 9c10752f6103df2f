package s3_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/s3"
)

// client is one caller.
type client struct {
	w    *world
	name string
}

func (cl *client) roll(n int) int { return cl.w.roll(cl.name, n) }

func (cl *client) duration(from, to time.Duration) time.Duration {
	return cl.w.duration(cl.name, from, to)
}

// run does random things until the end, with pauses from nothing to an hour and a half.
func (cl *client) run(end time.Time) {
	w := cl.w
	for time.Now().Before(end) {
		s, name := cl.anyStore()
		space := modelSpaces[cl.roll(len(modelSpaces))]
		c := s.Namespace(space)
		switch cl.roll(8) {
		case 0, 1:
			cl.put(c, name, space)
		case 2, 3:
			cl.find(c, name, space)
		case 4, 5:
			w.get(c, name, blobKey{space, universe[cl.roll(len(universe))].Digest})
		case 6:
			cl.putAction(c, name, space)
		case 7:
			cl.getAction(c, name, space)
		}
		if cl.roll(6) > 0 {
			time.Sleep(cl.duration(0, 100*time.Millisecond))
			continue
		}
		// All clients go on at the same time, so that they meet.
		slot := w.retention / 4
		time.Sleep(time.Until(time.Now().Truncate(slot).Add(slot * time.Duration(1+cl.roll(3)))))
	}
}

// promise notes that a blob was said to be there.
func (w *world) promise(k blobKey, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if until := at.Add(w.retention); until.After(w.promises[k]) {
		w.promises[k] = until
	}
}

func (w *world) promised(k blobKey) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.promises[k]
}

// some returns a few blobs.
func (cl *client) some() []cache.Blob {
	var bs []cache.Blob
	for range 1 + cl.roll(6) {
		bs = append(bs, universe[cl.roll(len(universe))])
	}
	return bs
}

func (cl *client) put(c *s3.Cache, name, space string) {
	w := cl.w
	bs := cl.some()
	err := c.PutMany(context.Background(), bs)
	w.note("%s put in %s: %v", name, space, err)
	if err != nil {
		return
	}
	w.mu.Lock()
	w.tally.Puts++
	w.mu.Unlock()
	for _, b := range bs {
		w.note("  acknowledged %s", b.Digest.Short())
		w.promise(blobKey{space, b.Digest}, time.Now())
	}
	s, other := cl.anyStore() // what was acknowledged is everywhere at once
	w.get(s.Namespace(space), other, blobKey{space, bs[0].Digest})
}

func (cl *client) find(c *s3.Cache, name, space string) {
	w := cl.w
	ds := digests(cl.some())
	missing, err := c.FindMissing(context.Background(), ds)
	at := time.Now()
	if err != nil {
		if errors.Is(err, cache.ErrNotFound) {
			w.violated("%s: FindMissing took a failure for a miss: %v", name, err)
		}
		return
	}
	w.mu.Lock()
	w.tally.Finds++
	w.mu.Unlock()
	for _, d := range ds {
		if slices.Contains(missing, d) {
			continue
		}
		k := blobKey{space, d}
		w.note("%s says %s of %s is present", name, d.Short(), space)
		w.promise(k, at)
		if cl.roll(2) == 0 {
			s, other := cl.anyStore()
			w.get(s.Namespace(space), other, k)
		}
	}
}

// get reads a blob, which must not be missing while a promise holds.
func (w *world) get(c *s3.Cache, name string, k blobKey) {
	until := w.promised(k)
	b, err := cache.ReadBlob(context.Background(), c, k.digest, 1<<20)
	now := time.Now()
	w.mu.Lock()
	w.tally.Gets++
	w.mu.Unlock()
	switch {
	case err == nil && !bytes.Equal(b, modelByDigest[k.digest]):
		w.violated("%s: %s came back as other bytes", name, k.digest)
	case errors.Is(err, cache.ErrNotFound):
		w.mu.Lock()
		w.tally.Misses++
		w.mu.Unlock()
		if now.Before(until) {
			for _, n := range w.nodes {
				w.note("%s: %s", n.name, s3.Explain(n.store.Namespace(k.namespace), k.digest))
			}
			w.violated("%s: blob %s of %s is not found, and was promised for another %s: %v", name, k.digest.Short(), k.namespace, until.Sub(now), err)
		}
	}
}

func (cl *client) putAction(c *s3.Cache, name, space string) {
	w := cl.w
	act := modelActions[cl.roll(len(modelActions))]
	result := modelResults[cl.roll(len(modelResults))]
	ctx := context.Background()
	if err := c.PutMany(ctx, []cache.Blob{result}); err != nil {
		return
	}
	k := blobKey{space, act}
	w.mu.Lock()
	w.actions[k] = append(w.actions[k], result.Digest)
	w.mu.Unlock()
	err := c.PutAction(ctx, act, result.Digest)
	w.note("%s put action %s of %s: %v", name, act.Short(), space, err)
	if err == nil {
		w.promise(blobKey{space, result.Digest}, time.Now())
	}
}

func (cl *client) getAction(c *s3.Cache, name, space string) {
	w := cl.w
	act := modelActions[cl.roll(len(modelActions))]
	d, err := c.GetAction(context.Background(), act)
	if err != nil {
		return
	}
	w.mu.Lock()
	sent := w.actions[blobKey{space, act}]
	w.mu.Unlock()
	if !slices.Contains(sent, d) {
		w.violated("%s: action %s has result %s, which nobody stored", name, act.Short(), d.Short())
	}
	w.note("%s says action %s of %s has result %s", name, act.Short(), space, d.Short())
	k := blobKey{space, d}
	w.promise(k, time.Now())
	s, other := cl.anyStore()
	w.get(s.Namespace(space), other, k)
}
