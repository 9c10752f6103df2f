package s3_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// busy answers the first put of a pack as S3 does while an earlier try of it is still under way.
type busy struct{ answered atomic.Bool }

// RoundTrip implements http.RoundTripper.
func (b *busy) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/pack/") && b.answered.CompareAndSwap(false, true) {
		return answer(r, http.StatusConflict, "ConditionalRequestConflict"), nil
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestConflictIsNoSuccess: a put that meets another one under way (409) may be all that is ever done of it.
func TestConflictIsNoSuccess(t *testing.T) {
	o := s3.Impatient(fakeS3(t))
	calm := o
	b := new(busy)
	o.Transport = b
	bs := blobs(60, 3, 100)
	require.NoError(t, connect(t, o).Namespace("main").PutMany(t.Context(), bs))
	require.True(t, b.answered.Load())
	for _, want := range bs {
		require.NoError(t, same(t, connect(t, calm).Namespace("main"), want), "it was acknowledged")
	}
}

// TestSlowReaders: clients that do not read what they asked for keep the node from nothing else.
func TestSlowReaders(t *testing.T) {
	s := connect(t, fakeS3(t))
	c, bs := s.Namespace("main"), blobs(61, 1, 300<<10)
	require.NoError(t, c.PutMany(t.Context(), bs))
	for range 64 {
		rc, err := c.Get(t.Context(), bs[0].Digest)
		require.NoError(t, err)
		defer rc.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, s.Refresh(ctx))
	require.NoError(t, c.PutMany(ctx, blobs(62, 1, 100)))
}

// TestClaimedSize: memory for parts is taken before a byte has come, so a size that nobody can have is refused.
func TestClaimedSize(t *testing.T) {
	c := open(t, s3test.NewSim(time.Now), s3.Options{Manual: true}).Namespace("main")
	for _, size := range []int64{1 << 50, 1<<63 - 1} {
		d := digest.SHA256.FromSum([digest.Size]byte{1}, size)
		require.ErrorIs(t, c.Put(t.Context(), d, strings.NewReader("a few bytes")), digest.ErrInvalid)
	}
}

// TestStalledUpload: a client that stops sending a large blob does not keep another one from sending it.
func TestStalledUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, s3test.NewSim(time.Now), s3.Options{Manual: true}).Namespace("main")
		b := blobs(63, 1, 300<<10)[0]
		stalled, w := io.Pipe()
		first := make(chan error, 1)
		go func() { first <- c.Put(t.Context(), b.Digest, stalled) }()
		synctest.Wait()
		require.NoError(t, c.Put(t.Context(), b.Digest, bytes.NewReader(b.Data)))
		require.NoError(t, same(t, c, b))
		require.NoError(t, w.CloseWithError(io.ErrClosedPipe))
		require.ErrorIs(t, <-first, io.ErrClosedPipe)
	})
}

// TestReadOnly: a store that was opened for reading only writes nothing, and promises no more than others did.
func TestReadOnly(t *testing.T) {
	sim, ctx := s3test.NewSim(time.Now), t.Context()
	writer := open(t, sim, s3.Options{Manual: true, Retention: time.Hour})
	bs := blobs(64, 3, 100)
	require.NoError(t, writer.Namespace("main").PutMany(ctx, bs[:2]))
	before := sim.Keys("")

	_, err := s3.OpenBucket(ctx, sim, s3.Options{Manual: true, ReadOnly: true, Retention: 2 * time.Hour})
	require.ErrorContains(t, err, "promises 1h0m0s")
	s := open(t, sim, s3.Options{Manual: true, ReadOnly: true})
	require.NoError(t, same(t, s.Namespace("main"), bs[0]))
	_, err = s.GC(ctx, s3.GCOptions{MaxBytes: 1})
	require.ErrorContains(t, err, "reading only")
	require.ErrorContains(t, s.Compact(ctx), "reading only")
	require.ErrorContains(t, s.AddRoot(ctx, "main", "prod", digests(bs[:1])), "reading only")
	_, err = s.Purge(ctx, s3.PurgeFilter{Principal: "ci"})
	require.ErrorContains(t, err, "reading only")
	require.ErrorContains(t, s.Namespace("main").PutMany(ctx, bs[2:]), "reading only")
	_, err = s.Scrub(ctx)
	require.NoError(t, err)
	require.Equal(t, before, sim.Keys(""))
}

// TestRootOfALongName: a root that gc could not read would stop it for good.
func TestRootOfALongName(t *testing.T) {
	s := open(t, s3test.NewSim(time.Now), s3.Options{Manual: true})
	require.Error(t, s.AddRoot(t.Context(), strings.Repeat("n", 5000), "prod", nil))
	_, err := s.GC(t.Context(), s3.GCOptions{})
	require.NoError(t, err)
}

// firstList calls meanwhile before the first listing of packs.
type firstList struct {
	*s3test.Sim
	meanwhile func()
}

// List implements s3.Bucket.
func (b *firstList) List(ctx context.Context, prefix, after string) (s3.Page, error) {
	if f := b.meanwhile; f != nil && prefix == "pack/" {
		b.meanwhile = nil
		f()
	}
	return b.Sim.List(ctx, prefix, after)
}

// TestTwoNodesBegin: that another node was first to use an empty bucket is not a lost index.
func TestTwoNodesBegin(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	bs := blobs(65, 1, 100)
	second := open(t, &firstList{sim, func() {
		require.NoError(t, open(t, sim, s3.Options{Manual: true}).Namespace("main").PutMany(t.Context(), bs))
	}}, s3.Options{Manual: true})
	require.NoError(t, same(t, second.Namespace("main"), bs[0]))
}

// undated is a gateway that leaves out Last-Modified.
type undated struct{ *s3test.Sim }

// Get implements s3.Bucket.
func (b undated) Get(ctx context.Context, key string, o s3.GetOptions) (*s3.Object, error) {
	obj, err := b.Sim.Get(ctx, key, o)
	if err == nil {
		obj.Modified = time.Time{}
	}
	return obj, err
}

// TestWithoutLastModified: what was condemned nobody knows when is not taken for condemned long ago.
func TestWithoutLastModified(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	s := open(t, undated{sim}, s3.Options{Manual: true})
	bs := blobs(66, 3, 100)
	require.NoError(t, s.Namespace("main").PutMany(t.Context(), bs))
	r, err := s.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
	require.NoError(t, err)
	require.Equal(t, 1, r.CondemnedPacks)
	r, err = s.GC(t.Context(), s3.GCOptions{})
	require.NoError(t, err)
	require.Zero(t, r.DeletedPacks)
	_, err = cache.ReadBlob(t.Context(), s.Namespace("main"), bs[0].Digest, 1000)
	require.NoError(t, err)
}
