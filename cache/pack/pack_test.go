package pack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
)

func TestCAS(t *testing.T) {
	for name, opts := range map[string]Options{"LRU": {}, "promise": {Retention: time.Hour}} {
		t.Run(name, func(t *testing.T) {
			cachetest.TestCAS(t, func(t *testing.T) cache.CAS { return ns(t, openAt(t, t.TempDir(), opts), "") })
			cachetest.TestActionCache(t, func(t *testing.T) (cache.CAS, cache.ActionCache) {
				c := ns(t, openAt(t, t.TempDir(), opts), "i")
				return c, c
			})
		})
	}
}

func TestNamespaces(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, Options{})
	a, b := ns(t, s, "a"), ns(t, s, "b")
	d := put(t, a, text(1, 1000))
	require.Empty(t, missing(t, a, d))
	require.Equal(t, []digest.Digest{d}, missing(t, b, d), "knowing a digest opens no other namespace")
	require.Equal(t, int64(1000), a.Bytes())
	require.Zero(t, b.Bytes())
	require.NoError(t, s.Close())
	s = openAt(t, dir, Options{})
	require.Equal(t, []digest.Digest{d}, missing(t, ns(t, s, "b"), d))
	require.Empty(t, missing(t, ns(t, s, "a"), d))
	require.Equal(t, int64(1000), ns(t, s, "a").Bytes())
}

// TestReopen has a store closed in good order, or not at all, and opened again.
func TestReopen(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprint("closed ", clean), func(t *testing.T) {
			dir := t.TempDir()
			s := openAt(t, dir, Options{MaxBytes: 64 << 20})
			c := ns(t, s, "")
			var all [][]byte
			for i := range uint64(300) {
				all = append(all, random(i, 20_000), text(i, 30_000))
			}
			all = append(all, random(1000, 1<<20+17), text(1001, 3<<20), random(1002, smallBlob), random(1003, smallBlob+1))
			for _, b := range all {
				put(t, c, b)
			}
			action := digest.FromBytes([]byte("action"))
			ctx := cache.WithPrincipal(t.Context(), "alice")
			for i := range int32(3) {
				require.NoError(t, c.UpdateActionResult(ctx, action, &repb.ActionResult{ExitCode: i}))
			}
			used := s.Stats().Bytes
			if clean {
				require.NoError(t, s.Close())
			} else {
				abandon(s)
			}
			s = openAt(t, dir, Options{MaxBytes: 64 << 20})
			c = ns(t, s, "")
			for _, b := range all {
				requireBlob(t, c, b)
			}
			ar, err := c.GetActionResult(t.Context(), action)
			require.NoError(t, err)
			require.Equal(t, int32(2), ar.GetExitCode(), "the last one written")
			require.Equal(t, used, s.Stats().Bytes, "counted the same")
			var writers []string
			require.NoError(t, s.Actions(t.Context(), func(a Action) bool { writers = append(writers, a.Writer); return true }))
			require.Equal(t, []string{"alice"}, writers)
		})
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	openAt(t, dir, Options{})
	_, err := Open(dir, Options{MaxBytes: 1 << 30})
	require.ErrorContains(t, err, "another process has it open")
	_, err = Open(dir, Options{MaxBytes: 1000})
	require.ErrorContains(t, err, "too small")
}

// TestZstd reads large and small blobs compressed, from several offsets, with another implementation's eyes.
func TestZstd(t *testing.T) {
	c := ns(t, openAt(t, t.TempDir(), Options{}), "")
	mixed := append(append(text(1, 400_000), random(2, 300_000)...), text(3, 123_457)...)
	for _, b := range [][]byte{text(1, 100), random(1, 5000), text(2, 1<<20), random(3, 1<<20+1), mixed} {
		d := put(t, c, b)
		for _, offset := range []int{0, 1, 50, len(b) / 2, len(b) - 1, len(b)} {
			rc, err := c.GetZstd(t.Context(), d, int64(offset))
			require.NoError(t, err)
			dec, err := zstd.NewReader(rc)
			require.NoError(t, err)
			got, err := io.ReadAll(dec)
			require.NoError(t, err)
			require.True(t, bytes.Equal(b[offset:], got), "%d bytes from %d on", len(b), offset)
			dec.Close()
			require.NoError(t, rc.Close())

			rc, err = c.GetFrom(t.Context(), d, int64(offset))
			require.NoError(t, err)
			got, err = io.ReadAll(rc)
			require.NoError(t, err)
			require.True(t, bytes.Equal(b[offset:], got))
			require.NoError(t, rc.Close())
		}
	}
}

func TestGetMany(t *testing.T) {
	c := ns(t, openAt(t, t.TempDir(), Options{}), "")
	bs := [][]byte{text(1, 10), nil, random(2, 1<<20), random(3, smallBlob), text(4, 1000)}
	var ds []digest.Digest
	for _, b := range bs {
		ds = append(ds, put(t, c, b))
	}
	ds = append(ds, digest.FromBytes([]byte("absent")))
	seen := 0
	require.NoError(t, c.GetMany(t.Context(), ds, func(i int, data []byte, err error) {
		require.Equal(t, seen, i)
		seen++
		if i == len(bs) {
			require.ErrorIs(t, err, cache.ErrNotFound)
			return
		}
		require.NoError(t, err)
		require.True(t, bytes.Equal(bs[i], data))
	}))
	require.Equal(t, len(ds), seen)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, c.GetMany(ctx, ds, func(int, []byte, error) {}))
}
