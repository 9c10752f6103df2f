package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// TestSilent has a cache go silent, neither away nor back: whatever waits for it ends, and says why. A stream that moves, however
// slowly, goes on.
func TestSilent(t *testing.T) {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s, m := grpc.NewServer(server.Options()...), memory.New()
	service := server.Register(s, server.Single(m, m))
	go func() { _ = s.Serve(backend) }()
	t.Cleanup(func() { s.Stop(); service.Close() })
	between := relay(t, backend.Addr().String())
	p := patience{call: 300 * time.Millisecond, batch: 400 * time.Millisecond, stream: 500 * time.Millisecond, again: 200 * time.Millisecond}
	c, err := dial(t.Context(), "grpc://"+between.addr, p)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })

	small, large := []byte("small"), bytes.Repeat([]byte("large"), 1<<20)
	one, other := digest.FromBytes(small), digest.FromBytes(large)
	require.NoError(t, c.Put(t.Context(), one, bytes.NewReader(small)))
	slow := &slowly{r: bytes.NewReader(large), pause: 20 * time.Millisecond} // in all longer than the stream may say nothing
	require.NoError(t, c.Put(t.Context(), other, slow))
	r, err := c.Get(t.Context(), other)
	require.NoError(t, err)
	got, err := io.ReadAll(&slowly{r: r, pause: 20 * time.Millisecond})
	require.NoError(t, err)
	require.Equal(t, large, got)

	half, err := c.Get(t.Context(), other)
	require.NoError(t, err)
	between.hold()
	for what, call := range map[string]func(context.Context) error{
		"find":       func(ctx context.Context) error { _, err := c.FindMissing(ctx, []digest.Digest{one}); return err },
		"get small":  func(ctx context.Context) error { _, err := c.Get(ctx, one); return err },
		"get large":  func(ctx context.Context) error { _, err := c.Get(ctx, other); return err },
		"rest":       func(context.Context) error { _, err := io.ReadAll(half); return err },
		"put small":  func(ctx context.Context) error { return c.Put(ctx, one, bytes.NewReader(small)) },
		"put large":  func(ctx context.Context) error { return c.Put(ctx, other, bytes.NewReader(large)) },
		"result":     func(ctx context.Context) error { _, err := c.GetActionResult(ctx, one); return err },
		"put result": func(ctx context.Context) error { return c.UpdateActionResult(ctx, one, &repb.ActionResult{}) },
		"tree": func(ctx context.Context) error {
			return c.GetTree(ctx, one, func(*repb.Directory) error { return nil })
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := call(ctx)
		require.NoError(t, ctx.Err(), what)
		cancel()
		require.Equal(t, codes.DeadlineExceeded, status.Code(err), "%s: %v", what, err)
		require.ErrorContains(t, err, "no answer in time", what)
		require.NotErrorIs(t, err, cache.ErrNotFound, what)
	}
	_, err = c.FindMissing(t.Context(), []digest.Digest{one})
	require.ErrorContains(t, errors.Unwrap(err), "nothing was heard of the cache again", "nobody waits for all of its time once more")
	between.release()
	missing, err := c.FindMissing(t.Context(), []digest.Digest{one})
	require.NoError(t, err)
	require.Empty(t, missing)
}

// TestSilentFromTheStart has a server that takes a connection and says nothing on it.
func TestSilentFromTheStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	c, err := dial(t.Context(), "grpc://"+l.Addr().String(), patience{connect: 100 * time.Millisecond, call: time.Minute})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = c.FindMissing(t.Context(), []digest.Digest{digest.FromBytes([]byte("x"))})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, err, "the server took the connection and says nothing")
}

type slowly struct {
	r     io.Reader
	pause time.Duration
}

func (s *slowly) Read(b []byte) (int, error) {
	time.Sleep(s.pause)
	return s.r.Read(b[:min(len(b), 128<<10)])
}

// relayed is a network between a client and a server that can be made to hold back what is sent.
type relayed struct {
	addr string
	mu   sync.RWMutex
}

func relay(t *testing.T, to string) *relayed {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relayed{addr: l.Addr().String()}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				return
			}
			t.Cleanup(func() { client.Close(); server.Close() })
			go r.pass(client, server)
			go r.pass(server, client)
		}
	}()
	return r
}

func (r *relayed) pass(from, to net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		r.mu.RLock()
		_, err = to.Write(b[:n])
		r.mu.RUnlock()
		if err != nil {
			return
		}
	}
}

// hold lets nothing more through.
func (r *relayed) hold() { r.mu.Lock() }

func (r *relayed) release() { r.mu.Unlock() }
