package s3_test

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/s3"
)

// maintainer compacts, collects, kills and pins at random.
func (cl *client) maintain(end time.Time) {
	w := cl.w
	ctx := context.Background()
	for time.Now().Before(end) {
		time.Sleep(cl.duration(0, w.retention/6))
		s, name := cl.anyStore()
		switch cl.roll(12) {
		case 0, 1:
			w.note("kill")
			if n := w.nodes[cl.roll(len(w.nodes))]; !w.isAway(n) {
				n.kill()
			}
		case 2, 3, 4, 5:
			if s.Compact(ctx) == nil {
				w.mu.Lock()
				w.tally.Compactions++
				w.mu.Unlock()
			}
		case 6, 7, 8, 9:
			cl.collect(s, name)
		case 10:
			_ = s.Refresh(ctx)
		case 11:
			cl.unpin(s)
		}
	}
}

func (cl *client) collect(s *s3.Store, name string) {
	w := cl.w
	o := s3.GCOptions{MaxBytes: int64(1 + cl.roll(6000))}
	if cl.roll(3) == 0 {
		o = s3.GCOptions{MaxAge: cl.duration(time.Minute, 2*w.retention)}
	}
	var meanwhile sync.WaitGroup
	if cl.roll(3) == 0 { // two at once
		meanwhile.Go(func() {
			time.Sleep(time.Microsecond)
			other, _ := cl.anyStore()
			_, _ = other.GC(context.Background(), o)
		})
	}
	meanwhile.Go(func() {
		for range cl.roll(4) {
			(&client{w, "pinner"}).pin()
		}
	})
	r, err := s.GC(context.Background(), o)
	meanwhile.Wait()
	w.note("%s gc %+v: %+v %v", name, o, r, err)
	if r.DeletedPacks+r.SweptObjects > 0 {
		cl.askAll()
	}
	cl.askPinned()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.Condemned += r.CondemnedPacks
	w.tally.Moved += int(r.MovedRecords)
	w.tally.Deleted += r.DeletedPacks
	w.tally.Swept += r.SweptObjects
}

// askAll asks some node for each blob that is still promised, now that something was deleted.
func (cl *client) askAll() {
	w := cl.w
	w.mu.Lock()
	var ks []blobKey
	for k, until := range w.promises {
		if time.Now().Before(until) {
			ks = append(ks, k)
		}
	}
	w.mu.Unlock()
	slices.SortFunc(ks, func(a, b blobKey) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), a.digest.Compare(b.digest))
	})
	for _, k := range ks {
		s, name := cl.anyStore()
		w.get(s.Namespace(k.namespace), name, k)
	}
}

// finish ends the faults, and asks for all that is still promised: of the nodes there are, of a new one, and of an index
// that is made anew from the packs.
func (w *world) finish() {
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	ctx := context.Background()
	fresh := &node{w: w, name: "new node"}
	fresh.start()
	lost := w.sim.Copy()
	for _, k := range lost.Keys("") {
		if !strings.HasPrefix(k, "pack/") {
			lost.Alter(k, func([]byte) []byte { return nil })
		}
	}
	_, err := s3.RebuildBucket(ctx, lost, s3.Options{})
	require.NoError(w.t, err)
	rebuilt, err := s3.OpenBucket(ctx, lost, w.options(s3.Options{Manual: true}))
	require.NoError(w.t, err)
	for k := range w.promises {
		w.get(fresh.store.Namespace(k.namespace), "a new node", k)
		w.get(rebuilt.Namespace(k.namespace), "a rebuilt index", k)
		for _, n := range w.nodes {
			w.get(n.store.Namespace(k.namespace), "an old node", k)
		}
	}
	(&client{w, "census"}).askPinned()
	for _, n := range append(w.nodes, fresh) {
		(&client{w, "census"}).census(n)
	}
	v, err := fresh.store.Verify(ctx)
	require.NoError(w.t, err)
	require.Empty(w.t, v.WrongLen)
	_, err = fresh.store.GC(ctx, s3.GCOptions{})
	require.NoError(w.t, err, "gc recovers without anyone's help")
	time.Sleep(4*w.limit + time.Hour) // what was late has happened
	last := &node{w: w, name: "last node"}
	last.start()
	(&client{w, "census"}).census(last)
	for _, n := range append(w.nodes, fresh, last) {
		require.NoError(w.t, n.store.Refresh(ctx))
		require.NoError(w.t, n.store.Close())
	}
	require.NoError(w.t, rebuilt.Close())
}
