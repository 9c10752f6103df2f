package s3_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/pack"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
	"github.com/pexpress/pexpress/cache/tiered"
)

// handClock goes on only when it is told to.
type handClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const (
	kept     = time.Hour
	tierSize = 64 << 20
	pace     = 10 * time.Minute
)

// fleet is two nodes over one bucket: a with a disk in front, b without.
type fleet struct {
	t      *testing.T
	clock  *handClock
	sim    *s3test.Sim
	dir    string
	limits s3.GCOptions

	disk       *pack.Store
	storeA     *s3.Store
	storeB     *s3.Store
	a          *tiered.Cache
	b          *s3.Cache
	evicted    int64
	blobs      []digest.Digest
	data       map[digest.Digest][]byte
	actions    []digest.Digest
	promises   map[digest.Digest]time.Time
	condemned  int
	favourites []cache.Blob
}

func newFleet(t *testing.T, limits s3.GCOptions) *fleet {
	c := &handClock{now: time.Unix(1_800_000_000, 0)}
	f := &fleet{
		t: t, clock: c, sim: s3test.NewSim(c.Now), dir: t.TempDir(), limits: limits,
		data: map[digest.Digest][]byte{}, promises: map[digest.Digest]time.Time{}, favourites: blobs(80, 3, 2000),
	}
	f.storeB = open(t, f.sim, f.options())
	f.b = f.storeB.Namespace("main")
	f.start()
	t.Cleanup(f.stop)
	return f
}

func (f *fleet) options() s3.Options {
	o := s3.Options{Manual: true, Linger: -1, Retention: kept, TouchAfter: kept / 2, Now: f.clock.Now}
	return s3.CommitLimit(o, kept)
}

// start opens node a, over what is on its disk.
func (f *fleet) start() {
	var err error
	f.disk, err = pack.Open(f.dir, pack.Options{MaxBytes: tierSize, Retention: kept, Now: f.clock.Now})
	require.NoError(f.t, err)
	front, err := f.disk.Namespace("main")
	require.NoError(f.t, err)
	f.storeA, err = s3.OpenBucket(f.t.Context(), f.sim, f.options())
	require.NoError(f.t, err)
	// A disk that is full of what it has promised refuses more: the bucket has it.
	f.a = tiered.New(front, f.storeA.Namespace("main"), f.dir, func(err error) { require.ErrorIs(f.t, err, cache.ErrFull) })
}

func (f *fleet) stop() {
	f.a.Wait()
	f.evicted += f.disk.Stats().Evicted
	require.LessOrEqual(f.t, f.disk.Stats().Bytes, int64(tierSize))
	require.NoError(f.t, f.disk.Close())
	require.NoError(f.t, f.storeA.Close())
}

// put stores what is new in a round, through one of the nodes.
func (f *fleet) put(round, large int) {
	bs := append(blobs(uint64(900+round), 4, 250<<10), blobs(uint64(950+round), 1, large)...)
	var c interface {
		cache.BatchPutter
		cache.ActionCache
	} = f.a
	if round%2 == 1 {
		c = f.b
	}
	require.NoError(f.t, c.PutMany(f.t.Context(), bs))
	act := digest.FromBytes(fmt.Append(nil, "action ", round))
	require.NoError(f.t, c.UpdateActionResult(f.t.Context(), act, &repb.ActionResult{StdoutDigest: bs[0].Digest.Proto()}))
	f.actions = append(f.actions, act)
	for _, b := range bs {
		f.data[b.Digest] = b.Data
		f.blobs = append(f.blobs, b.Digest)
		f.promise(b.Digest)
	}
}

func (f *fleet) promise(d digest.Digest) { f.promises[d] = f.clock.Now().Add(kept) }

// ask notes what both nodes say is present.
func (f *fleet) ask() {
	for _, c := range []interface {
		cache.CAS
		cache.ActionCache
	}{f.a, f.b} {
		missing, err := c.FindMissing(f.t.Context(), f.blobs)
		require.NoError(f.t, err)
		for _, d := range f.blobs {
			if !slices.Contains(missing, d) {
				f.promise(d)
			}
		}
		for _, act := range f.actions {
			ar, err := c.GetActionResult(f.t.Context(), act)
			if err != nil {
				require.ErrorIs(f.t, err, cache.ErrNotFound)
				continue
			}
			b, d, err := digest.Marshal(ar)
			require.NoError(f.t, err)
			f.data[d] = b
			f.promise(d)
		}
	}
}

// check reads all that is promised through both nodes.
func (f *fleet) check() {
	for d, until := range f.promises {
		if f.clock.Now().After(until) {
			delete(f.promises, d)
			continue
		}
		for name, c := range map[string]cache.CAS{"a": f.a, "b": f.b} {
			got, err := cache.ReadBlob(f.t.Context(), c, d, 1<<30)
			require.NoError(f.t, err, "node %s, promised for another %s", name, until.Sub(f.clock.Now()))
			require.True(f.t, bytes.Equal(f.data[d], got), "node %s: %s", name, d)
		}
	}
}

// round is ten minutes. Node a's view is as old as it may be when it says what is present, and gc was there in between.
func (f *fleet) round(n, large int) {
	ctx := f.t.Context()
	if large > 0 {
		f.put(n, large)
	}
	if n%3 == 2 {
		f.stop()
		f.start()
	}
	require.NoError(f.t, f.storeA.Refresh(ctx))
	f.clock.advance(time.Second)
	r, err := f.storeB.GC(ctx, f.limits)
	require.NoError(f.t, err)
	f.condemned += r.CondemnedPacks
	f.check()
	f.clock.advance(s3.Freshness - 2*time.Second)
	f.ask()
	_, err = f.storeB.GC(ctx, f.limits)
	require.NoError(f.t, err)
	f.check()
	f.clock.advance(pace + time.Second - s3.Freshness)
	f.check()
}

// end lets the promises run out, with a collector that condemns all, and sees bucket and disk shrink.
func (f *fleet) end(rounds int) {
	require.Positive(f.t, f.condemned)
	f.limits = s3.GCOptions{MaxBytes: 1}
	for n := range 18 {
		f.round(rounds+n, 0)
	}
	require.Empty(f.t, f.promises)
	require.Empty(f.t, f.sim.Keys("pack/"), "all that was condemned is deleted in the end")
}

// TestRetentionThroughTheTiers: what any node reported present can be read through every node for as long as was
// promised, through a collector that condemns all there is, a disk that is full, and restarts; and yet all of it goes.
func TestRetentionThroughTheTiers(t *testing.T) {
	f := newFleet(t, s3.GCOptions{MaxBytes: 1})
	for n := range 14 {
		f.round(n, 7<<20)
	}
	f.end(14)
	f.stop()
	require.Positive(t, f.evicted, "the disk was full")
	f.start()
}

// TestUsedStays: a collector that takes what was not used for two hours leaves what is asked for every ten minutes, since
// uses are recorded, and takes the rest.
func TestUsedStays(t *testing.T) {
	f := newFleet(t, s3.GCOptions{MaxAge: 2 * kept})
	require.NoError(t, f.b.PutMany(t.Context(), f.favourites))
	for n := range 20 {
		if n < 6 {
			f.put(n, 300<<10)
			f.ask()
		}
		if n == 6 {
			f.blobs, f.actions = digests(f.favourites), nil
			for _, b := range f.favourites {
				f.data[b.Digest] = b.Data
			}
		}
		missing, err := f.a.FindMissing(t.Context(), digests(f.favourites))
		require.NoError(t, err)
		require.Empty(t, missing, "round %d", n)
		f.round(n, 0)
	}
	f.end(20)
}
