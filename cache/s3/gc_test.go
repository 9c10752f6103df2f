package s3_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// TestGC holds gc to its promise with a clock of its own: what is condemned reads as missing at once, can be read for the
// retention time, and is deleted after it.
func TestGC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := s3test.NewSim(time.Now)
		ctx := t.Context()
		s := open(t, sim, s3.Options{TouchAfter: time.Hour})
		c := s.Namespace("main")
		var packs [][]cache.Blob
		for i := range 10 {
			bs := blobs(uint64(100+i), 10, 10_000)
			packs = append(packs, bs)
			require.NoError(t, c.PutMany(ctx, bs))
			time.Sleep(time.Minute)
		}
		time.Sleep(2 * time.Hour)
		missing, err := c.FindMissing(ctx, digests(packs[0])) // the oldest ones are used
		require.NoError(t, err)
		require.Empty(t, missing)
		one := packs[1][:1]
		_, err = c.FindMissing(ctx, digests(one))
		require.NoError(t, err)
		require.NoError(t, s.Close()) // writes the touches

		s = open(t, sim, s3.Options{})
		c = s.Namespace("main")
		r, err := s.GC(ctx, s3.GCOptions{MaxBytes: 715_500})
		require.NoError(t, err)
		require.Equal(t, 3, r.CondemnedPacks)
		require.EqualValues(t, 1, r.MovedRecords, "the one that was used left its pack")
		gone := append(append(digests(packs[1][1:]), digests(packs[2])...), digests(packs[3])...)
		missing, err = c.FindMissing(ctx, gone)
		require.NoError(t, err)
		require.Equal(t, gone, missing)
		for _, keep := range [][]cache.Blob{packs[0], one, packs[4], packs[9]} {
			missing, err = c.FindMissing(ctx, digests(keep))
			require.NoError(t, err)
			require.Empty(t, missing)
		}
		time.Sleep(s3.Freshness + 3*time.Hour)
		_, err = s.GC(ctx, s3.GCOptions{})
		require.NoError(t, err)
		got, err := cache.ReadBlob(ctx, c, packs[2][0].Digest, 1<<20)
		require.NoError(t, err, "it was condemned, and stays readable")
		require.Equal(t, packs[2][0].Data, got)

		time.Sleep(s3.Slack + time.Minute)
		r, err = s.GC(ctx, s3.GCOptions{})
		require.NoError(t, err)
		require.Equal(t, 3, r.DeletedPacks)
		_, err = cache.ReadBlob(ctx, c, packs[2][0].Digest, 1<<20)
		require.ErrorIs(t, err, cache.ErrNotFound)
		require.Len(t, sim.Keys("pack/"), 8)
		require.NoError(t, c.PutMany(ctx, packs[2]), "what was deleted can be put again")
		got, err = cache.ReadBlob(ctx, open(t, sim, s3.Options{}).Namespace("main"), packs[2][0].Digest, 1<<20)
		require.NoError(t, err)
		require.Equal(t, packs[2][0].Data, got)
	})
}

// TestReuploadOfCondemned: dedup must not take a condemned blob for a stored one.
func TestReuploadOfCondemned(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	s := open(t, sim, s3.Options{Manual: true})
	c := s.Namespace("main")
	bs := blobs(7, 5, 1000)
	require.NoError(t, c.PutMany(t.Context(), bs))
	r, err := s.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
	require.NoError(t, err)
	require.EqualValues(t, 5, r.CondemnedRecords)
	require.NoError(t, c.PutMany(t.Context(), bs))
	require.Len(t, sim.Keys("pack/"), 2)
	missing, err := open(t, sim, s3.Options{Manual: true}).Namespace("main").FindMissing(t.Context(), digests(bs))
	require.NoError(t, err)
	require.Empty(t, missing)
}

func TestRoots(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	ctx := t.Context()
	s := open(t, sim, s3.Options{Manual: true})
	c := s.Namespace("main")
	bs := blobs(8, 20, 1000)
	require.NoError(t, c.PutMany(ctx, bs))
	pinned := digests(bs[:5])
	absent := blobs(9, 1, 10)[0].Digest
	require.ErrorIs(t, s.AddRoot(ctx, "main", "prod", append(pinned, absent)), cache.ErrNotFound)
	require.NoError(t, s.AddRoot(ctx, "main", "prod", pinned))
	roots, err := s.Roots(ctx)
	require.NoError(t, err)
	require.Len(t, roots, 1)
	require.Equal(t, 5, roots[0].Digests)

	r, err := s.GC(ctx, s3.GCOptions{MaxBytes: 1})
	require.NoError(t, err)
	require.EqualValues(t, 5, r.MovedRecords)
	missing, err := c.FindMissing(ctx, digests(bs))
	require.NoError(t, err)
	require.Equal(t, digests(bs[5:]), missing)
	require.ErrorIs(t, s.AddRoot(ctx, "main", "late", digests(bs[5:6])), cache.ErrNotFound, "condemned already")

	require.NoError(t, s.RemoveRoot(ctx, "main", "prod"))
	_, err = s.GC(ctx, s3.GCOptions{MaxBytes: 1})
	require.NoError(t, err)
	missing, err = c.FindMissing(ctx, digests(bs))
	require.NoError(t, err)
	require.Len(t, missing, 20)
}

func TestPurge(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	ctx := t.Context()
	a, b := open(t, sim, s3.Options{Manual: true}), open(t, sim, s3.Options{Manual: true})
	put := func(s *s3.Store, who string, i uint64) digest.Digest {
		bs := blobs(500+i, 2, 100)
		c := s.Namespace("main")
		require.NoError(t, c.PutMany(ctx, bs[1:]))
		require.NoError(t, c.PutAction(cache.WithPrincipal(ctx, who), bs[0].Digest, bs[1].Digest))
		return bs[0].Digest
	}
	good, bad := put(a, "ci", 1), put(b, "mallory", 2)
	for _, s := range []*s3.Store{a, b} {
		for _, d := range []digest.Digest{good, bad} {
			_, err := s.Namespace("main").GetAction(ctx, d)
			require.NoError(t, err)
		}
	}
	_, err := a.Purge(ctx, s3.PurgeFilter{})
	require.Error(t, err)
	r, err := a.Purge(ctx, s3.PurgeFilter{Principal: "mallory", Namespace: "main", DryRun: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Entries)
	_, err = a.Namespace("main").GetAction(ctx, bad)
	require.NoError(t, err, "a dry run removes nothing")
	_, err = a.Purge(ctx, s3.PurgeFilter{Principal: "mallory", Namespace: "main"})
	require.NoError(t, err)
	require.NoError(t, b.Refresh(ctx))
	for _, s := range []*s3.Store{a, b, open(t, sim, s3.Options{Manual: true})} {
		_, err = s.Namespace("main").GetAction(ctx, bad)
		require.ErrorIs(t, err, cache.ErrNotFound)
		_, err = s.Namespace("main").GetAction(ctx, good)
		require.NoError(t, err)
	}
	_, err = b.GC(ctx, s3.GCOptions{})
	require.NoError(t, err)
	require.Equal(t, bad, put(b, "mallory", 2), "what is written later counts")
	_, err = a.Namespace("main").GetAction(ctx, bad)
	require.NoError(t, err)
}

func TestPutActionNeedsItsMessage(t *testing.T) {
	c := open(t, s3test.NewSim(time.Now), s3.Options{Manual: true}).Namespace("main")
	bs := blobs(11, 2, 10)
	require.ErrorIs(t, c.PutAction(t.Context(), bs[0].Digest, bs[1].Digest), cache.ErrNotFound)
	_, err := c.GetAction(t.Context(), bs[0].Digest)
	require.ErrorIs(t, err, cache.ErrNotFound)
}
