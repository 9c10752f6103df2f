package s3_test

import (
	"os"
	"runtime"
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

// TestStartSoak starts a node with an empty disk over a bucket whose index has five million entries, and prints how long
// the first answers take and what the index costs in memory, at first and when all of it is loaded.
func TestStartSoak(t *testing.T) {
	if os.Getenv("PEXPRESS_SOAK") != "1" {
		t.Skip("set PEXPRESS_SOAK=1 to make an index of five million entries")
	}
	ctx, o := t.Context(), s3test.StartVersity(t).Options()
	o.Manual = true
	writer := connect(t, o)
	bs, act := blobs(90, 10, 1000), digest.FromBytes([]byte("action"))
	want := &repb.ActionResult{ExitCode: 7, StdoutDigest: bs[0].Digest.Proto()}
	require.NoError(t, writer.Namespace("main").PutMany(ctx, bs))
	require.NoError(t, writer.Namespace("main").UpdateActionResult(ctx, act, want))
	began := time.Now()
	require.NoError(t, s3.FillIndex(ctx, writer, "main", 5_000_000))
	t.Logf("wrote the index in %s", time.Since(began))

	before := heap()
	dir := t.TempDir()
	began = time.Now()
	disk, err := pack.Open(dir, pack.Options{MaxBytes: 64 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, disk.Close()) })
	front, err := disk.Namespace("main")
	require.NoError(t, err)
	s := connect(t, o)
	c := tiered.New(front, s.Namespace("main"), dir, func(err error) { t.Error(err) })
	t.Cleanup(c.Wait)
	opened := time.Since(began)
	missing, err := c.FindMissing(ctx, digests(bs))
	require.NoError(t, err)
	require.Empty(t, missing)
	found := time.Since(began)
	ar, err := c.GetActionResult(ctx, act)
	require.NoError(t, err)
	require.Equal(t, want.ExitCode, ar.ExitCode)
	result := time.Since(began)
	st := s.Stats()
	t.Logf("from start: open %s, FindMissing %s, GetActionResult %s; %d of 256 shards loaded, %d entries", opened, found, result, st.ShardsReady, st.Entries)

	began = time.Now()
	_, err = s.Usage(ctx) // loads all
	require.NoError(t, err)
	st = s.Stats()
	require.Greater(t, st.Entries, int64(5_000_000))
	t.Logf("all %d entries after another %s: %d bytes of heap an entry, %d by the index's own count", st.Entries, time.Since(began),
		(heap()-before)/st.Entries, st.IndexMemory/st.Entries)
	_, err = cache.ReadBlob(ctx, c, bs[3].Digest, 1000)
	require.NoError(t, err)
}

// heap returns the bytes in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
