package pack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
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

// abandon leaves a store as SIGKILL does: nothing more is written, and the lock is gone.
func abandon(s *Store) {
	s.queue.close()
	<-s.closed
	s.closeFiles()
}

func blobOf(b []byte) cache.Blob { return cache.Blob{Digest: digest.FromBytes(b), Data: b} }
