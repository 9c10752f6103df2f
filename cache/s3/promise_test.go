package s3_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// TestPromiseToTheLastSecond has a node say "present" as late as it may, of a blob that another node has condemned in
// between, and gc try to delete it as early as it could: for as long as was promised, it can be read.
func TestPromiseToTheLastSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, ctx := s3test.NewSim(time.Now), t.Context()
		o := s3.Options{Manual: true, Retention: 3 * time.Hour}
		a, b := open(t, sim, o), open(t, sim, o)
		bs := blobs(50, 4, 1000)
		require.NoError(t, a.Namespace("main").PutMany(ctx, bs))
		require.NoError(t, a.Namespace("main").PutAction(ctx, bs[1].Digest, bs[2].Digest))
		require.NoError(t, a.Refresh(ctx)) // from here on, a's view is fresh for Freshness
		time.Sleep(time.Second)
		_, err := b.GC(ctx, s3.GCOptions{MaxBytes: 1})
		require.NoError(t, err)
		time.Sleep(s3.Freshness - 2*time.Second)
		requests := a.Stats().Requests
		missing, err := a.Namespace("main").FindMissing(ctx, digests(bs[:1]))
		require.NoError(t, err)
		require.Empty(t, missing, "a does not know yet")
		result, err := a.Namespace("main").GetAction(ctx, bs[1].Digest)
		require.NoError(t, err)
		require.Equal(t, requests, a.Stats().Requests)
		promised := time.Now().Add(o.Retention)

		time.Sleep(2 * time.Second)
		missing, err = a.Namespace("main").FindMissing(ctx, digests(bs[:1]))
		require.NoError(t, err)
		require.Len(t, missing, 1, "a view as old as Freshness says nothing")
		for ; time.Now().Before(promised); time.Sleep(time.Minute) {
			_, err = b.GC(ctx, s3.GCOptions{})
			require.NoError(t, err)
			for _, s := range []*s3.Store{a, b, open(t, sim, o)} {
				_, err = cache.ReadBlob(ctx, s.Namespace("main"), bs[0].Digest, 1<<20)
				require.NoError(t, err)
				_, err = cache.ReadBlob(ctx, s.Namespace("main"), result, 1<<20)
				require.NoError(t, err)
			}
		}
		time.Sleep(s3.Slack + s3.Freshness)
		r, err := b.GC(ctx, s3.GCOptions{})
		require.NoError(t, err)
		require.Equal(t, 2, r.DeletedPacks)
	})
}

// TestLongestPromiseCounts: a collector that promises an hour keeps what a node promised for six.
func TestLongestPromiseCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, ctx := s3test.NewSim(time.Now), t.Context()
		generous := open(t, sim, s3.Options{Manual: true, Retention: 6 * time.Hour})
		bs := blobs(51, 1, 1000)
		require.NoError(t, generous.Namespace("main").PutMany(ctx, bs))
		mean := open(t, sim, s3.Options{Manual: true, Retention: time.Hour})
		_, err := mean.GC(ctx, s3.GCOptions{MaxBytes: 1})
		require.NoError(t, err)
		time.Sleep(6 * time.Hour)
		r, err := mean.GC(ctx, s3.GCOptions{})
		require.NoError(t, err)
		require.Zero(t, r.DeletedPacks)
	})
}

// TestSweep: what a commit that crashed left is deleted, at an age at which it cannot be under way.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, ctx := s3test.NewSim(time.Now), t.Context()
		s := open(t, sim, s3.CommitLimit(s3.Options{Manual: true, Retention: time.Hour}, time.Hour))
		stray := "pack/00112233445566778899aabbccddeeff"
		_, err := sim.Put(ctx, stray, []byte("half a commit"))
		require.NoError(t, err)
		_, err = sim.Upload(ctx, stray)
		require.NoError(t, err)
		time.Sleep(2*time.Hour - time.Minute)
		_, err = s.GC(ctx, s3.GCOptions{})
		require.NoError(t, err)
		require.Contains(t, sim.Keys("pack/"), stray)
		time.Sleep(2 * time.Minute)
		_, err = s.GC(ctx, s3.GCOptions{})
		require.NoError(t, err)
		require.Empty(t, sim.Keys("pack/"))
		require.Zero(t, sim.Uploads())
	})
}
