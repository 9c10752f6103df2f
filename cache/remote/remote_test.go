package remote_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
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
