package s3_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// TestTruncatedPack: an object that has lost its end is damage, not a failure: it is set aside and can be put again, and
// neither scrub nor gc stumbles over it.
func TestTruncatedPack(t *testing.T) {
	for _, keep := range []int{0, 10, 100_000} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			sim, ctx := s3test.NewSim(time.Now), t.Context()
			s := open(t, sim, s3.Options{Manual: true})
			c := s.Namespace("main")
			bs := append(blobs(70, 1, 1000), blobs(71, 1, 400<<10)...)
			require.NoError(t, c.PutMany(ctx, bs))
			for _, k := range sim.Keys("pack/") {
				sim.Alter(k, func(b []byte) []byte { return append([]byte{}, b[:min(keep, len(b)/2)]...) })
			}
			for _, b := range bs {
				_, err := cache.ReadBlob(ctx, c, b.Digest, 1<<30)
				require.ErrorIs(t, err, digest.ErrMismatch)
			}
			missing, err := c.FindMissing(ctx, digests(bs))
			require.NoError(t, err)
			require.Equal(t, digests(bs), missing, "set aside, so that they are put again")

			other := open(t, sim, s3.Options{Manual: true})
			r, err := other.Scrub(ctx)
			require.NoError(t, err)
			require.Equal(t, 2, r.BadPacks)
			_, err = other.GC(ctx, s3.GCOptions{MaxBytes: 1})
			require.NoError(t, err)
			require.NoError(t, c.PutMany(ctx, bs))
			for _, b := range bs {
				require.NoError(t, same(t, open(t, sim, s3.Options{Manual: true}).Namespace("main"), b))
			}
		})
	}
}

// TestRecordsBehindDamage: where a record's header is damaged, those behind it are found by the index, and kept.
func TestRecordsBehindDamage(t *testing.T) {
	heal := map[string]func(*s3.Store) error{
		"scrub": func(s *s3.Store) error { _, err := s.Scrub(context.Background()); return err },
		"gc":    func(s *s3.Store) error { _, err := s.GC(context.Background(), s3.GCOptions{MaxBytes: 1}); return err },
	}
	for name, heal := range heal {
		t.Run(name, func(t *testing.T) {
			sim, ctx := s3test.NewSim(time.Now), t.Context()
			s := open(t, sim, s3.Options{Manual: true})
			bs := blobs(72, 10, 1000)
			require.NoError(t, s.Namespace("main").PutMany(ctx, bs))
			require.NoError(t, s.AddRoot(ctx, "main", "prod", digests(bs[5:8])))
			sim.Alter(sim.Keys("pack/")[0], func(b []byte) []byte {
				b[0] ^= 1
				return b
			})
			require.NoError(t, heal(s))
			fresh := open(t, sim, s3.Options{Manual: true}).Namespace("main")
			missing, err := fresh.FindMissing(ctx, digests(bs[5:8]))
			require.NoError(t, err)
			require.Empty(t, missing, "they are pinned, and nothing is wrong with them")
			for _, b := range bs[5:8] {
				require.NoError(t, same(t, fresh, b))
			}
		})
	}
}

// cut is a network that breaks in the middle of every pack.
type cut struct {
	*s3test.Sim
	on bool
}

// Get implements s3.Bucket.
func (b *cut) Get(ctx context.Context, key string, o s3.GetOptions) (*s3.Object, error) {
	obj, err := b.Sim.Get(ctx, key, o)
	if err == nil && b.on && strings.HasPrefix(key, "pack/") {
		if o.Offset > 0 {
			return nil, fmt.Errorf("get: %w", io.EOF)
		}
		obj.Body = io.NopCloser(io.MultiReader(io.LimitReader(obj.Body, 1000), broken{}))
	}
	return obj, err
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestScrubOverBrokenNetwork: packs that cannot be read are not for that reason bad ones.
func TestScrubOverBrokenNetwork(t *testing.T) {
	for _, size := range []int{2000, 400 << 10} {
		b := &cut{Sim: s3test.NewSim(time.Now)}
		s := open(t, b, s3.Options{Manual: true})
		require.NoError(t, s.Namespace("main").PutMany(t.Context(), blobs(73, 1, size)))
		b.on = true
		r, err := s.Scrub(t.Context())
		require.Error(t, err)
		require.Zero(t, r.BadPacks)
		require.Zero(t, s.Stats().Condemned)
	}
}

// TestDamagedIndex: whoever meets a damaged part of the index is told what helps.
func TestDamagedIndex(t *testing.T) {
	for _, key := range []string{"manifest", "run/", "shard/"} {
		t.Run(key, func(t *testing.T) {
			sim, ctx := s3test.NewSim(time.Now), t.Context()
			o := s3.Options{Manual: true}
			if key == "shard/" {
				o = s3.ShardsFrom(o, 1)
			}
			bs := blobs(74, 20, 100)
			s := open(t, sim, o)
			require.NoError(t, s.Namespace("main").PutMany(ctx, bs))
			require.NoError(t, s.Compact(ctx))
			for _, k := range sim.Keys(key) {
				sim.Alter(k, func(b []byte) []byte {
					b[len(b)/2] ^= 1
					return b
				})
			}
			n, err := s3.OpenBucket(ctx, sim, o)
			if err == nil { // shards are read when they are needed
				_, err = n.Namespace("main").FindMissing(ctx, digests(bs))
				require.NoError(t, n.Close())
			}
			require.ErrorIs(t, err, s3.ErrIndexLost)
			_, err = s3.RebuildBucket(ctx, sim, o)
			require.NoError(t, err)
			missing, err := open(t, sim, o).Namespace("main").FindMissing(ctx, digests(bs))
			require.NoError(t, err)
			require.Empty(t, missing)
		})
	}
}

// TestReplacedResultStaysAway: when gc takes the result that was stored last, the one before does not come back.
func TestReplacedResultStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, ctx := s3test.NewSim(time.Now), t.Context()
		o := s3.Options{Manual: true, Retention: time.Hour, TouchAfter: time.Hour}
		s := open(t, sim, o)
		c := s.Namespace("main")
		act := digest.FromBytes([]byte("an action"))
		old := &repb.ActionResult{StdoutRaw: make([]byte, 10_000)}
		require.NoError(t, c.UpdateActionResult(ctx, act, old))
		message, err := c.GetAction(ctx, act)
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NoError(t, c.UpdateActionResult(ctx, act, &repb.ActionResult{ExitCode: 1, StdoutRaw: []byte("new")}))
		time.Sleep(3 * time.Hour)
		missing, err := c.FindMissing(ctx, []digest.Digest{message}) // the pack with the old result is used
		require.NoError(t, err)
		require.Empty(t, missing)
		require.NoError(t, s3.FlushTouches(ctx, s))
		r, err := s.GC(ctx, s3.GCOptions{MaxAge: 2 * time.Hour})
		require.NoError(t, err)
		require.Equal(t, 1, r.CondemnedPacks)
		time.Sleep(4 * time.Hour)
		r, err = s.GC(ctx, s3.GCOptions{})
		require.NoError(t, err)
		require.Equal(t, 1, r.DeletedPacks)
		for _, n := range []*s3.Store{s, open(t, sim, o)} {
			_, err = n.Namespace("main").GetAction(ctx, act)
			require.ErrorIs(t, err, cache.ErrNotFound)
		}
	})
}

// deaf takes no touches while it is on.
type deaf struct {
	*s3test.Sim
	on bool
}

// Put implements s3.Bucket.
func (b *deaf) Put(ctx context.Context, key string, body []byte) (s3.Meta, error) {
	if b.on && strings.HasPrefix(key, "touch/") {
		return s3.Meta{}, errInjected
	}
	return b.Sim.Put(ctx, key, body)
}

// TestTouchesAreKept: a use that could not be written, or for which there was no room, is noted at another time.
func TestTouchesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ctx := &deaf{Sim: s3test.NewSim(time.Now), on: true}, t.Context()
		s := open(t, b, s3.Options{Manual: true})
		bs := blobs(75, 1<<16+1000, 8)
		require.NoError(t, s.Namespace("main").PutMany(ctx, bs))
		use := func() {
			_, err := s.Namespace("main").FindMissing(ctx, digests(bs))
			require.NoError(t, err)
		}
		time.Sleep(13 * time.Hour)
		use()
		require.ErrorIs(t, s3.FlushTouches(ctx, s), errInjected)
		require.Equal(t, 1<<16, s3.Touches(s))
		b.on = false
		require.NoError(t, s3.FlushTouches(ctx, s))
		require.Zero(t, s3.Touches(s))
		use()
		require.Equal(t, 1000, s3.Touches(s))
	})
}
