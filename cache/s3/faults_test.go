package s3_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// TestFaults writes and reads through a network that fails one request in eight. Callers that get an error try again, as
// clients do. Nothing wrong is served, an error is no miss, and what was acknowledged is there.
func TestFaults(t *testing.T) {
	o := fakeS3(t)
	bad := newChaos(0.12, allWays...)
	faulty := o
	faulty.Transport = bad
	a, b := connect(t, faulty), connect(t, faulty)
	all := append(blobs(40, 300, 900), blobs(41, 12, 400<<10)...)
	all = append(all, blobs(42, 1, 9<<20)...)
	var g errgroup.Group
	g.SetLimit(8)
	for i, blob := range all {
		g.Go(func() error {
			writer, reader := a.Namespace("main"), b.Namespace("main")
			if i%2 == 0 {
				writer, reader = reader, writer
			}
			err := insist(func() error { return writer.Put(t.Context(), blob.Digest, bytes.NewReader(blob.Data)) })
			if err != nil {
				return err
			}
			return insist(func() error { return same(t, reader, blob) })
		})
	}
	require.NoError(t, g.Wait())
	require.NoError(t, insist(func() error { return a.Compact(t.Context()) }))
	require.NoError(t, insist(func() error { _, err := b.GC(t.Context(), s3.GCOptions{}); return err }))
	for _, way := range allWays {
		require.Positive(t, bad.hits[way], way)
	}
	calm := connect(t, o).Namespace("main")
	for _, blob := range all {
		require.NoError(t, same(t, calm, blob))
	}
	bad.setRate(0)
	missing, err := a.Namespace("main").FindMissing(t.Context(), digests(all))
	require.NoError(t, err)
	require.Empty(t, missing, "a node recovers by itself")
}

// insist tries again what failed, and gives up when something is said to be missing.
func insist(f func() error) error {
	var err error
	for range 20 {
		if err = f(); err == nil || errors.Is(err, cache.ErrNotFound) {
			return err
		}
	}
	return err
}

func same(t *testing.T, c cache.CAS, want cache.Blob) error {
	got, err := cache.ReadBlob(t.Context(), c, want.Digest, 1<<30)
	if err == nil && !bytes.Equal(want.Data, got) {
		return errors.New("the bytes are wrong, and nobody noticed")
	}
	return err
}

// TestErrorsAreNoMisses answers every request with an error, of each kind.
func TestErrorsAreNoMisses(t *testing.T) {
	for _, way := range []string{"500", "slow down", "forbidden", "refused"} {
		t.Run(way, func(t *testing.T) {
			o := fakeS3(t)
			bad := newChaos(0, way)
			o = s3.Impatient(o)
			o.Transport = bad
			now := time.Now()
			var mu sync.Mutex
			o.Now = func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return now
			}
			c := connect(t, o).Namespace("main")
			bs := blobs(43, 2, 100)
			require.NoError(t, c.PutMany(t.Context(), bs[:1]))
			bad.setRate(1)
			check := func(want error) {
				for _, err := range []error{
					func() error { _, err := c.FindMissing(t.Context(), digests(bs)); return err }(),
					func() error { _, err := c.Get(t.Context(), bs[1].Digest); return err }(),
					func() error { _, err := c.GetAction(t.Context(), bs[1].Digest); return err }(),
					c.PutMany(t.Context(), bs[1:]),
				} {
					require.Error(t, err)
					require.NotErrorIs(t, err, cache.ErrNotFound)
				}
				missing, err := c.FindMissing(t.Context(), digests(bs[:1]))
				require.ErrorIs(t, err, want)
				require.Empty(t, missing)
			}
			check(nil)
			mu.Lock()
			now = now.Add(s3.Freshness)
			mu.Unlock()
			check(s3.ErrStale)
			bad.setRate(0)
			missing, err := c.FindMissing(t.Context(), digests(bs))
			require.NoError(t, err)
			require.Equal(t, digests(bs[1:]), missing)
		})
	}
}

// TestClockOfS3 is hours off, either way: only S3's own dates are compared with each other.
func TestClockOfS3(t *testing.T) {
	for _, skew := range []time.Duration{-9 * time.Hour, 9 * time.Hour} {
		o := fakeS3(t)
		bad := newChaos(0)
		bad.skew = skew
		o.Transport = bad
		s := connect(t, o)
		bs := blobs(44, 10, 1000)
		require.NoError(t, s.Namespace("main").PutMany(t.Context(), bs))
		r, err := s.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
		require.NoError(t, err)
		require.EqualValues(t, 10, r.CondemnedRecords)
		r, err = s.GC(t.Context(), s3.GCOptions{})
		require.NoError(t, err)
		require.Zero(t, r.DeletedPacks, "condemned a moment ago, whatever the clocks say")
		require.NoError(t, same(t, s.Namespace("main"), bs[0]))
	}
}

// TestTwoClocks: a gateway that dates its answers by another clock than its objects is refused before anything is
// acknowledged.
func TestTwoClocks(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	o := s3.Options{Manual: true}
	open(t, sim, o)
	s := open(t, twoClocks{sim}, o)
	bs := blobs(47, 1, 10)
	require.ErrorContains(t, s.Namespace("main").PutMany(t.Context(), bs), "set its clocks")
	require.Empty(t, sim.Keys("tail/"))
}

// twoClocks dates listings by another time zone.
type twoClocks struct{ *s3test.Sim }

func (b twoClocks) List(ctx context.Context, prefix, after string) (s3.Page, error) {
	p, err := b.Sim.List(ctx, prefix, after)
	for i := range p.Objects {
		p.Objects[i].Modified = p.Objects[i].Modified.Add(7 * time.Hour)
	}
	return p, err
}

// TestWithoutConditions: a bucket that ignores If-Match serves, and nothing of it is deleted.
func TestWithoutConditions(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	sim.NoConditions = true
	s := open(t, sim, s3.Options{Manual: true})
	bs := blobs(45, 10, 100)
	require.NoError(t, s.Namespace("main").PutMany(t.Context(), bs))
	_, err := s.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
	require.ErrorIs(t, err, s3.ErrNoConditionalPut)
	require.ErrorIs(t, s.Compact(t.Context()), s3.ErrNoConditionalPut)
	require.NoError(t, same(t, open(t, sim, s3.Options{Manual: true}).Namespace("main"), bs[3]))
}

// TestServerStops kills the S3 server and starts it again, under nodes that stay.
func TestServerStops(t *testing.T) {
	v := s3test.StartVersity(t)
	s := connect(t, v.Options())
	c := s.Namespace("main")
	bs := blobs(46, 40, 2000)
	require.NoError(t, c.PutMany(t.Context(), bs[:20]))
	v.Stop()
	_, err := c.Get(t.Context(), bs[0].Digest)
	require.Error(t, err)
	require.NotErrorIs(t, err, cache.ErrNotFound)
	v.Start()
	for _, b := range bs[:20] {
		require.NoError(t, insist(func() error { return same(t, c, b) }))
	}
	require.NoError(t, insist(func() error { return c.PutMany(t.Context(), bs) }))
	r, err := s.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
	require.NoError(t, err, "versitygw honours If-Match")
	require.EqualValues(t, 40, r.CondemnedRecords)
}
