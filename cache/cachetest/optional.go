package cachetest

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// testGetAll is also for what is no cache.BatchGetter: cache.GetAll hides the difference.
func testGetAll(t *testing.T, fn digest.Function, c cache.CAS) {
	bs := blobs(fn, 21, 200, 300)
	for i, size := range []int{0, 1, 64 << 10, 1 << 20} {
		b := content(22, size)
		bs[10*i] = cache.Blob{Digest: fn.FromBytes(b), Data: b}
	}
	require.NoError(t, cache.PutAll(t.Context(), c, bs))
	gone := fn.FromBytes(content(23, 300))
	ds := append(digests(bs), gone, bs[7].Digest)
	times := make([]int, len(ds))
	require.NoError(t, cache.GetAll(t.Context(), c, ds, 2<<20, func(i int, data []byte, err error) {
		times[i]++
		if ds[i] == gone {
			require.ErrorIs(t, err, cache.ErrNotFound)
			return
		}
		require.NoError(t, err)
		require.Equal(t, ds[i], fn.FromBytes(data))
		clear(data) // it is only lent, and nobody else's
	}))
	for i, n := range times {
		require.Equal(t, 1, n, "blob %d is answered once", i)
	}
	requireAll(t, c, bs)
	require.NoError(t, cache.GetAll(t.Context(), c, nil, 1<<20, func(int, []byte, error) { t.Error("nothing was asked for") }))
}

// offsets are places in a blob of size bytes worth reading from.
func offsets(size int) []int64 {
	all := []int64{0, int64(size)}
	for _, o := range []int{1, size / 2, size - 1, 256 << 10, 1<<20 + 5} {
		if o > 0 && o < size {
			all = append(all, int64(o))
		}
	}
	return all
}

// testParts is for what is a cache.RangeGetter.
func testParts(t *testing.T, fn digest.Function, c cache.CAS) {
	r, ok := c.(cache.RangeGetter)
	if !ok {
		t.Skip("it reads no parts of blobs")
	}
	for _, size := range []int{1, 1000, 3 << 20} {
		b := content(24, size)
		d := mustPut(t, fn, c, b)
		for _, offset := range offsets(size) {
			rc, err := r.GetFrom(t.Context(), d, offset)
			require.NoError(t, err, "%d bytes from %d", size, offset)
			got, err := io.ReadAll(rc)
			require.NoError(t, err)
			require.NoError(t, rc.Close())
			require.True(t, bytes.Equal(b[offset:], got), "%d bytes from %d", size, offset)
		}
	}
	rc, err := r.GetFrom(t.Context(), fn.FromBytes(content(25, 1000)), 10)
	if err == nil {
		_, err = io.ReadAll(rc)
		rc.Close()
	}
	require.ErrorIs(t, err, cache.ErrNotFound)
}

// testFrames is for what is a cache.ZstdGetter, which may say of any blob that it does not hold it compressed.
func testFrames(t *testing.T, fn digest.Function, c cache.CAS) {
	z, ok := c.(cache.ZstdGetter)
	if !ok {
		t.Skip("it holds no zstd frames")
	}
	dec, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer dec.Close()
	for _, size := range []int{1, 1000, 3 << 20} {
		for _, b := range [][]byte{content(26, size), bytes.Repeat([]byte("text"), size)[:size]} {
			d := mustPut(t, fn, c, b)
			for _, offset := range offsets(size) {
				rc, err := z.GetZstd(t.Context(), d, offset)
				if errors.Is(err, cache.ErrNoZstd) {
					continue
				}
				require.NoError(t, err, "%d bytes from %d", size, offset)
				frames, err := io.ReadAll(rc)
				require.NoError(t, err)
				require.NoError(t, rc.Close())
				got, err := dec.DecodeAll(frames, nil)
				require.NoError(t, err)
				require.True(t, bytes.Equal(b[offset:], got), "%d bytes from %d", size, offset)
			}
		}
	}
	rc, err := z.GetZstd(t.Context(), fn.FromBytes(content(27, 1000)), 0)
	if err == nil {
		_, err = io.ReadAll(rc)
		rc.Close()
	}
	require.True(t, errors.Is(err, cache.ErrNotFound) || errors.Is(err, cache.ErrNoZstd), "%v", err)
}
