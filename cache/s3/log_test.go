package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

func blobs(seed uint64, n, size int) []cache.Blob {
	rng := rand.New(rand.NewPCG(seed, 0))
	bs := make([]cache.Blob, n)
	for i := range bs {
		b := make([]byte, size)
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		bs[i] = cache.Blob{Digest: digest.FromBytes(b), Data: b}
	}
	return bs
}

func digests(bs []cache.Blob) []digest.Digest {
	ds := make([]digest.Digest, len(bs))
	for i := range bs {
		ds[i] = bs[i].Digest
	}
	return ds
}

func puts(s *s3.Store) int64 {
	r := s.Stats().Requests
	return r["PUT"] + r["UPLOAD"]
}

// TestRequests counts what issue 4 counts: 10,000 blobs of 1 KiB, in batches of 100 by 16 callers, take at most 20 puts,
// and asking for them again takes no request at all.
func TestRequests(t *testing.T) {
	o := fakeS3(t)
	o.Linger = time.Second // a commit waits that long only for callers who are slower than they were
	s := connect(t, o)
	c := s.Namespace("main")
	bs := blobs(1, 10_000, 1<<10)
	before := puts(s)
	var g errgroup.Group
	g.SetLimit(16)
	for batch := range 100 {
		g.Go(func() error { return c.PutMany(t.Context(), bs[batch*100:][:100]) })
	}
	require.NoError(t, g.Wait())
	t.Logf("%d puts", puts(s)-before)
	require.LessOrEqual(t, puts(s)-before, int64(20))

	requests := s.Stats().Requests
	missing, err := c.FindMissing(t.Context(), digests(bs))
	require.NoError(t, err)
	require.Empty(t, missing)
	require.Equal(t, requests, s.Stats().Requests, "all was known")

	second := connect(t, o)
	for range 2 {
		missing, err = second.Namespace("main").FindMissing(t.Context(), digests(bs))
		require.NoError(t, err)
		require.Empty(t, missing)
	}
	require.Zero(t, second.Stats().Looks, "what was committed before a node starts is known to it")
	n := 0
	err = second.Namespace("main").GetMany(t.Context(), digests(bs), func(i int, data []byte, err error) {
		require.NoError(t, err)
		require.Equal(t, bs[i].Data, data)
		n++
	})
	require.NoError(t, err)
	require.Equal(t, len(bs), n)
	require.Less(t, second.Stats().Requests["GET"], int64(50), "neighbours are read together")
}

// TestSecondNodeSeesAtOnce: what one node acknowledged, another one finds when it is asked for it.
func TestSecondNodeSeesAtOnce(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	a := open(t, sim, s3.Options{Manual: true}).Namespace("main")
	b := open(t, sim, s3.Options{Manual: true}).Namespace("main")
	for i, blob := range blobs(2, 20, 100) {
		require.NoError(t, a.Put(t.Context(), blob.Digest, bytes.NewReader(blob.Data)))
		got, err := cache.ReadBlob(t.Context(), b, blob.Digest, 1000)
		require.NoError(t, err, i)
		require.Equal(t, blob.Data, got)
	}
	other := open(t, sim, s3.Options{Manual: true}).Namespace("other")
	missing, err := other.FindMissing(t.Context(), digests(blobs(2, 3, 100)))
	require.NoError(t, err)
	require.Len(t, missing, 3, "namespaces share nothing")
}

// TestCompaction folds again and again, with nodes that look on at different times.
func TestCompaction(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	o := s3.Options{Manual: true, Linger: -1}
	writer, seldom := open(t, sim, o), open(t, sim, o)
	var all []cache.Blob
	for round := range 12 {
		for i := range 3 {
			bs := blobs(uint64(1000+10*round+i), 10, 50)
			require.NoError(t, writer.Namespace("main").PutMany(t.Context(), bs))
			all = append(all, bs...)
		}
		require.NoError(t, open(t, sim, o).Compact(t.Context()))
		require.Empty(t, sim.Keys("tail/"))
		for _, s := range []*s3.Store{writer, open(t, sim, o)} {
			missing, err := s.Namespace("main").FindMissing(t.Context(), digests(all))
			require.NoError(t, err)
			require.Empty(t, missing)
		}
	}
	missing, err := seldom.Namespace("main").FindMissing(t.Context(), digests(all))
	require.NoError(t, err)
	require.Empty(t, missing)
	for _, b := range all {
		got, err := cache.ReadBlob(t.Context(), seldom.Namespace("main"), b.Digest, 100)
		require.NoError(t, err)
		require.Equal(t, b.Data, got)
	}
}

// TestShards has enough entries for shards, which nodes then load one by one.
func TestShards(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	o := s3.Options{Manual: true}
	a := open(t, sim, o)
	bs := blobs(3, 70_000, 8)
	require.NoError(t, a.Namespace("main").PutMany(t.Context(), bs))
	require.NoError(t, a.Compact(t.Context()))
	require.Len(t, sim.Keys("shard/"), 256)
	require.Empty(t, sim.Keys("tail/"))

	b := open(t, sim, o)
	require.Zero(t, b.Stats().ShardsReady)
	for _, blob := range bs[:5] {
		got, err := cache.ReadBlob(t.Context(), b.Namespace("main"), blob.Digest, 100)
		require.NoError(t, err)
		require.Equal(t, blob.Data, got)
	}
	require.LessOrEqual(t, b.Stats().ShardsReady, 5)

	more := blobs(4, 20_000, 8)
	require.NoError(t, b.Namespace("main").PutMany(t.Context(), more))
	require.NoError(t, b.Compact(t.Context()))
	for _, s := range []*s3.Store{a, b, open(t, sim, o)} {
		missing, err := s.Namespace("main").FindMissing(t.Context(), append(digests(bs), digests(more)...))
		require.NoError(t, err)
		require.Empty(t, missing)
		st := s.Stats()
		require.Less(t, st.IndexMemory/st.Entries, int64(64), "bytes per entry")
	}
	_, err := a.GC(t.Context(), s3.GCOptions{})
	require.NoError(t, err)
	v, err := open(t, sim, o).Verify(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 90_000, v.Entries)
	require.Empty(t, v.Missing)
	require.Zero(t, v.Strays)
}

// TestLarge sends blobs of several parts, and reads them from the middle.
func TestLarge(t *testing.T) {
	for _, o := range []s3.Options{fakeS3(t)} {
		s := connect(t, o)
		c := s.Namespace("main")
		b := blobs(12, 1, 20<<20+77)[0]
		require.NoError(t, c.Put(t.Context(), b.Digest, bytes.NewReader(b.Data)))
		for _, at := range []int64{0, 1, 65535, 65536, 65537, 10 << 20, int64(len(b.Data)) - 1, int64(len(b.Data))} {
			rc, err := connect(t, o).Namespace("main").GetFrom(t.Context(), b.Digest, at)
			require.NoError(t, err)
			got, err := io.ReadAll(rc)
			require.NoError(t, err)
			require.NoError(t, rc.Close())
			require.True(t, bytes.Equal(b.Data[at:], got), "from %d", at)
		}
	}
}

// TestRebuild loses the index, part by part, and makes it anew from the packs.
func TestRebuild(t *testing.T) {
	ctx := t.Context()
	for _, lose := range []string{"manifest", "run/", "tail/", ""} {
		t.Run("lost "+lose, func(t *testing.T) {
			sim := s3test.NewSim(time.Now)
			s := open(t, sim, s3.Options{Manual: true})
			c := s.Namespace("main")
			bs := append(blobs(20, 50, 1000), blobs(21, 1, 9<<20)...)
			require.NoError(t, c.PutMany(ctx, bs[:20]))
			require.NoError(t, c.PutAction(ctx, bs[0].Digest, bs[1].Digest))
			require.NoError(t, s.Compact(ctx))
			require.NoError(t, c.PutMany(ctx, bs[20:]))
			for _, k := range sim.Keys(lose) {
				if lose != "" || k[:5] != "pack/" {
					sim.Alter(k, func([]byte) []byte { return nil })
				}
			}
			if lose != "tail/" {
				_, err := s3.OpenBucket(ctx, sim, s3.Options{Manual: true})
				require.ErrorIs(t, err, s3.ErrIndexLost)
			}
			r, err := s3.RebuildBucket(ctx, sim, s3.Options{})
			require.NoError(t, err)
			require.EqualValues(t, 52, r.Records)
			for _, n := range []*s3.Store{s, open(t, sim, s3.Options{Manual: true})} {
				require.NoError(t, n.Refresh(ctx))
				missing, err := n.Namespace("main").FindMissing(ctx, digests(bs))
				require.NoError(t, err)
				require.Empty(t, missing)
				for _, b := range bs {
					got, err := cache.ReadBlob(ctx, n.Namespace("main"), b.Digest, 1<<30)
					require.NoError(t, err)
					require.True(t, bytes.Equal(b.Data, got))
				}
				result, err := n.Namespace("main").GetAction(ctx, bs[0].Digest)
				require.NoError(t, err)
				require.Equal(t, bs[1].Digest, result)
			}
		})
	}
}

// TestScrub damages records at rest, and heals by uploads what was lost.
func TestScrub(t *testing.T) {
	ctx := context.Background()
	sim := s3test.NewSim(time.Now)
	s := open(t, sim, s3.Options{Manual: true})
	c := s.Namespace("main")
	bs := append(blobs(30, 20, 1000), blobs(31, 1, 3<<20)...)
	require.NoError(t, c.PutMany(ctx, bs))
	clean, err := s.Scrub(ctx)
	require.NoError(t, err)
	require.Zero(t, clean.BadRecords)
	require.EqualValues(t, 21, clean.Records)
	for _, k := range sim.Keys("pack/") {
		sim.Alter(k, func(b []byte) []byte {
			b[len(b)-100] ^= 1
			return b
		})
	}
	_, err = cache.ReadBlob(ctx, c, bs[19].Digest, 1<<20)
	require.ErrorIs(t, err, digest.ErrMismatch)
	require.ErrorContains(t, err, bs[19].Digest.Hash())
	missing, err := c.FindMissing(ctx, digests(bs[19:20]))
	require.NoError(t, err)
	require.Len(t, missing, 1, "set aside, so that it is put again")

	r, err := s.Scrub(ctx)
	require.NoError(t, err)
	require.Equal(t, 2, r.BadPacks)
	require.EqualValues(t, 19, r.Rescued)
	require.Len(t, r.Bad, 2, fmt.Sprint(r.Bad))
	fresh := open(t, sim, s3.Options{Manual: true}).Namespace("main")
	missing, err = fresh.FindMissing(ctx, digests(bs))
	require.NoError(t, err)
	require.Equal(t, digests(bs[19:]), missing)
	require.NoError(t, fresh.PutMany(ctx, bs))
	for _, b := range bs {
		got, err := cache.ReadBlob(ctx, fresh, b.Digest, 1<<30)
		require.NoError(t, err)
		require.True(t, bytes.Equal(b.Data, got))
	}
}
