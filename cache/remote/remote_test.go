package remote_test

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/remote"
	"github.com/pexpress/pexpress/cache/server"
)

// pair returns a client of a server over the project's fake, through a unix socket.
func pair(t *testing.T) *remote.Cache {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := grpc.NewServer()
	m := memory.New()
	server.Register(s, m, m)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	c, err := remote.Dial(context.Background(), "unix://"+socket)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestCAS(t *testing.T) {
	cachetest.TestCAS(t, func(t *testing.T) cache.CAS { return pair(t) })
}

func TestActionCache(t *testing.T) {
	cachetest.TestActionCache(t, func(t *testing.T) (cache.CAS, cache.ActionCache) {
		c := pair(t)
		return c, c
	})
}

func TestDialRefuses(t *testing.T) {
	for _, target := range []string{"", "/dir", "http://host:1", "grpc://host", "grpc://%zz"} {
		_, err := remote.Dial(context.Background(), target)
		require.Error(t, err, target)
	}
}

// TestLargeBatch stores blobs whose sum is just above what one message may hold.
func TestLargeBatch(t *testing.T) {
	c := pair(t)
	var blobs []cache.Blob
	for i := range 9 {
		b := bytes.Repeat([]byte{byte(i)}, 1<<20-i)
		blobs = append(blobs, cache.Blob{Digest: digest.FromBytes(b), Data: b})
	}
	require.NoError(t, cache.PutAll(t.Context(), c, blobs))
	for _, b := range blobs {
		missing, err := c.FindMissing(t.Context(), []digest.Digest{b.Digest})
		require.NoError(t, err)
		require.Empty(t, missing)
	}
}
