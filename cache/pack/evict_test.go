package pack

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// TestEviction fills a store several times over: it stays within its limit, and what is used stays.
func TestEviction(t *testing.T) {
	clk := newClock()
	dir := t.TempDir()
	opts := Options{MaxBytes: 64 << 20, Now: clk.time}
	s := openAt(t, dir, opts)
	c := ns(t, s, "")
	loved, lovedLarge := random(1_000_000, 3000), random(1_000_001, 500_000)
	put(t, c, loved)
	put(t, c, lovedLarge)
	for i := range uint64(400) {
		clk.forward(time.Minute)
		put(t, c, random(i, 100_000))
		put(t, c, random(i+10_000, 400_000))
		requireBlob(t, c, loved)
		requireBlob(t, c, lovedLarge)
		require.LessOrEqual(t, s.Stats().Bytes, opts.MaxBytes)
	}
	require.Positive(t, s.Stats().Evicted)
	require.Len(t, missing(t, c, digest.FromBytes(random(0, 100_000))), 1)
	require.LessOrEqual(t, size(t, dir), opts.MaxBytes+opts.MaxBytes/50)
	require.NoError(t, s.Close())
	s = openAt(t, dir, opts)
	requireBlob(t, ns(t, s, ""), loved)
	rep, err := s.Verify(t.Context())
	require.NoError(t, err)
	require.Empty(t, rep.Damaged)
}

// size is what the files in a directory take up.
func size(t *testing.T, dir string) int64 {
	total := int64(0)
	require.NoError(t, filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		if err == nil {
			total += st.Size()
		}
		return err
	}))
	return total
}

// TestPromise fills a store whose blobs have been reported present: writes are refused until the promise has run out, and
// nothing promised is lost, also by a kill.
func TestPromise(t *testing.T) {
	clk := newClock()
	dir := t.TempDir()
	opts := Options{MaxBytes: 64 << 20, Retention: 3 * time.Hour, Now: clk.time}
	s := openAt(t, dir, opts)
	c := ns(t, s, "")
	old := random(7, 200_000)
	put(t, c, old)
	clk.forward(10 * time.Hour)
	require.Empty(t, missing(t, c, digest.FromBytes(old)), "found: promised for three hours more")
	abandon(s)
	s = openAt(t, dir, opts)
	c = ns(t, s, "")

	var kept []uint64
	var err error
	for i := uint64(100); err == nil; i++ {
		if _, err = cache.PutBlob(t.Context(), c, random(i, 200_000)); err == nil {
			kept = append(kept, i)
		}
		require.Less(t, i, uint64(1000), "the store takes more than fits")
	}
	require.ErrorIs(t, err, cache.ErrFull)
	require.ErrorContains(t, err, "raise the limit")
	clk.forward(3*time.Hour - time.Minute)
	require.Error(t, c.Put(t.Context(), digest.FromBytes(random(5000, 200_000)), bytes.NewReader(random(5000, 200_000))))
	requireBlob(t, c, old)
	for _, i := range kept {
		requireBlob(t, c, random(i, 200_000))
	}
	clk.forward(3 * time.Hour)
	put(t, c, random(5000, 200_000))
	require.LessOrEqual(t, s.Stats().Bytes, opts.MaxBytes)
}
