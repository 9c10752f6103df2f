package remote_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

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
	s := grpc.NewServer(server.Options()...)
	m := memory.New()
	service := server.Register(s, server.Single(m, m))
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		service.Close()
	})
	c, err := remote.Dial(context.Background(), "unix://"+socket)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// variants are the ways in which blobs are named and travel.
func variants(t *testing.T, run func(t *testing.T, fn digest.Function, pair func(*testing.T) *remote.Cache)) {
	for _, fn := range digest.Functions {
		t.Run(fn.String(), func(t *testing.T) { run(t, fn, pair) })
		t.Run(fn.String()+" zstd", func(t *testing.T) {
			run(t, fn, func(t *testing.T) *remote.Cache { return pair(t).Zstd() })
		})
	}
}

func TestCAS(t *testing.T) {
	variants(t, func(t *testing.T, fn digest.Function, pair func(*testing.T) *remote.Cache) {
		cachetest.TestCASWith(t, fn, func(t *testing.T) cache.CAS { return pair(t) })
	})
}

func TestActionCache(t *testing.T) {
	variants(t, func(t *testing.T, fn digest.Function, pair func(*testing.T) *remote.Cache) {
		cachetest.TestActionCacheWith(t, fn, func(t *testing.T) (cache.CAS, cache.ActionCache) {
			c := pair(t)
			return c, c
		})
	})
}

// TestFunctionsTogether asks for blobs of several functions in one call, which are several requests.
func TestFunctionsTogether(t *testing.T) {
	c := pair(t)
	var blobs []cache.Blob
	var ds []digest.Digest
	for i := range 10 {
		b := bytes.Repeat([]byte{byte(i)}, 100+i)
		d := digest.Functions[i%2].FromBytes(b)
		blobs, ds = append(blobs, cache.Blob{Digest: d, Data: b}), append(ds, d)
	}
	missing, err := c.FindMissing(t.Context(), ds)
	require.NoError(t, err)
	require.Equal(t, ds, missing)
	require.NoError(t, c.PutMany(t.Context(), blobs))
	missing, err = c.FindMissing(t.Context(), ds)
	require.NoError(t, err)
	require.Empty(t, missing)
}

func TestDialRefuses(t *testing.T) {
	for _, target := range []string{"", "/dir", "http://host:1", "grpc://host", "grpc://%zz"} {
		_, err := remote.Dial(context.Background(), target)
		require.Error(t, err, target)
	}
}

// TestGetTree reads trees by each function: all Directories of one that is there, and an error for one that is not.
func TestGetTree(t *testing.T) {
	for _, fn := range digest.Functions {
		c := pair(t)
		put := func(dir *repb.Directory) digest.Digest {
			b, err := proto.Marshal(dir)
			require.NoError(t, err)
			d := fn.FromBytes(b)
			require.NoError(t, c.Put(t.Context(), d, bytes.NewReader(b)))
			return d
		}
		sub := &repb.Directory{Symlinks: []*repb.SymlinkNode{{Name: "l", Target: "x"}}}
		d := put(sub)
		root := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "a", Digest: d.Proto()}, {Name: "b", Digest: d.Proto()}}}
		var got []*repb.Directory
		each := func(dir *repb.Directory) error { got = append(got, dir); return nil }
		require.NoError(t, c.GetTree(t.Context(), put(root), each))
		require.Len(t, got, 2)
		require.True(t, proto.Equal(root, got[0]) && proto.Equal(sub, got[1]), "%v", got)
		require.ErrorIs(t, c.GetTree(t.Context(), fn.FromBytes([]byte("gone")), each), cache.ErrNotFound)
		stop := errors.New("stop")
		require.Equal(t, stop, c.GetTree(t.Context(), put(root), func(*repb.Directory) error { return stop }))
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
