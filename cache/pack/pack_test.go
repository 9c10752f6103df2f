package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
)

// clock is a time that tests move.
type clock struct{ now atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.now.Store(1_800_000_000)
	return c
}

func (c *clock) time() time.Time         { return time.Unix(c.now.Load(), 0) }
func (c *clock) forward(d time.Duration) { c.now.Add(int64(d / time.Second)) }

func openAt(t *testing.T, dir string, opts Options) *Store {
	t.Helper()
	if opts.MaxBytes == 0 {
		opts.MaxBytes = 1 << 30
	}
	s, err := Open(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func ns(t *testing.T, s *Store, name string) *Cache {
	t.Helper()
	c, err := s.Namespace(name)
	require.NoError(t, err)
	return c
}

// random returns n bytes that do not compress, text n bytes that do.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = r.Read(b)
	return b
}

func text(seed uint64, n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d of text %d\n", i, seed)
	}
	return b.Bytes()[:n]
}

func put(t *testing.T, c *Cache, b []byte) digest.Digest {
	t.Helper()
	d, err := cache.PutBlob(t.Context(), c, b)
	require.NoError(t, err)
	return d
}

func requireBlob(t *testing.T, c *Cache, b []byte) {
	t.Helper()
	d := digest.FromBytes(b)
	got, err := cache.ReadBlob(t.Context(), c, d, int64(len(b)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, got), "%s came back as other bytes", d)
}

func missing(t *testing.T, c *Cache, ds ...digest.Digest) []digest.Digest {
	t.Helper()
	m, err := c.FindMissing(t.Context(), ds)
	require.NoError(t, err)
	return m
}

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

// abandon leaves a store as SIGKILL does: nothing more is written, and the lock is gone.
func abandon(s *Store) {
	s.queue.close()
	<-s.closed
	s.closeFiles()
}

// TestTornTail cuts and flips the end of a segment that was not sealed: what was acknowledged before is there, the rest is
// a miss, and the store goes on.
func TestTornTail(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, path string){
		"cut": func(t *testing.T, path string) {
			st, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, st.Size()-10))
		},
		"garbage": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.Write(random(9, 5000))
			require.NoError(t, errors.Join(err, f.Close()))
		},
		"flipped": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			b[len(b)-1] ^= 1
			require.NoError(t, os.WriteFile(path, b, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openAt(t, dir, Options{})
			c := ns(t, s, "")
			first, last := random(1, 5000), random(2, 5000)
			put(t, c, first)
			put(t, c, last)
			path := s.segmentPath(s.active.id)
			abandon(s)
			harm(t, path)
			c = ns(t, openAt(t, dir, Options{}), "")
			requireBlob(t, c, first)
			if name != "garbage" {
				require.Len(t, missing(t, c, digest.FromBytes(last)), 1)
			}
			put(t, c, last)
			requireBlob(t, c, last)
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

// TestDamaged flips a bit in what is stored: it is an error that names the digest, then a miss, and can be put again.
func TestDamaged(t *testing.T) {
	for _, size := range []int{1000, 2 << 20} {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprint(size, clean), func(t *testing.T) {
				dir := t.TempDir()
				s := openAt(t, dir, Options{})
				c := ns(t, s, "")
				b := random(1, size)
				d := put(t, c, b)
				path := s.segmentPath(s.active.id)
				if size > smallBlob {
					r := refOf(d, 0, 0)
					path = s.filePath(s.table.find(&r).loc)
				}
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				require.NoError(t, err)
				_, err = f.WriteAt([]byte{b[500] ^ 1}, int64(500+map[bool]int{true: headerSize}[size <= smallBlob]))
				require.NoError(t, errors.Join(err, f.Close()))
				if clean {
					rep, err := s.Verify(t.Context())
					require.NoError(t, err)
					require.Len(t, rep.Damaged, 1)
					require.Contains(t, rep.Damaged[0], d.Hash())
				} else {
					_, err = cache.ReadBlob(t.Context(), c, d, int64(size))
					require.ErrorIs(t, err, digest.ErrMismatch)
					require.ErrorContains(t, err, d.Hash())
				}
				require.Equal(t, []digest.Digest{d}, missing(t, c, d))
				require.NoError(t, s.Close())
				s = openAt(t, dir, Options{})
				c = ns(t, s, "")
				require.Equal(t, []digest.Digest{d}, missing(t, c, d), "also after a restart")
				put(t, c, b)
				requireBlob(t, c, b)
				rep, err := s.Verify(t.Context())
				require.NoError(t, err)
				require.Empty(t, rep.Damaged)
				require.Equal(t, 1, rep.Checked)
			})
		}
	}
}

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

func blobOf(b []byte) cache.Blob { return cache.Blob{Digest: digest.FromBytes(b), Data: b} }
