package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

const flips = 50

// load calls f from several goroutines until stopped, and returns the number of
// calls and the first error.
func load(f func() error) (stop func() (int64, error)) {
	var (
		wg    sync.WaitGroup
		calls atomic.Int64
		once  sync.Once
		first error
		done  = make(chan struct{})
	)
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				calls.Add(1)
				if err := f(); err != nil {
					once.Do(func() { first = err })
					return
				}
			}
		})
	}
	return func() (int64, error) {
		close(done)
		wg.Wait()
		return calls.Load(), first
	}
}

// Every flip has a version of its own, killed without mercy once drained: a
// request that still reached it would fail.
func TestNoCallFailsOverSwitches(t *testing.T) {
	ctx := testContext(t)
	v := &version{name: "v0"}
	addr, srv := v.start(t)
	b := NewBackend(addr)
	s, front := serve(t, b)
	client := dialGRPC(t, front)
	stop := load(func() error {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 100)}})
		return err
	})
	for i := range flips {
		next := &version{name: fmt.Sprintf("v%d", i+1)}
		nextAddr, nextSrv := next.start(t)
		nb := NewBackend(nextAddr)
		old := s.Point(nb)
		require.Same(t, b, old)
		require.NoError(t, old.Drain(ctx))
		require.Zero(t, old.InFlight())
		n := v.calls.Load()
		srv.Stop()
		require.NoError(t, old.Close())
		eventually(t, "a call on the new version", func() bool { return next.calls.Load() > 10 })
		require.Equal(t, n, v.calls.Load(), "a call began on a drained version")
		v, srv, b = next, nextSrv, nb
	}
	calls, err := stop()
	require.NoError(t, err)
	require.Greater(t, calls, int64(10*flips))
}

func TestNoRequestFailsOverSwitches(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			ctx := testContext(t)
			addr, srv := startHTTP(t, named("v"))
			b := NewBackend(addr)
			s, front := serve(t, b)
			client := newClient(t, h2)
			stop := load(func() error {
				res, err := client.Post("http://"+front, "text/plain", strings.NewReader("hello"))
				if err != nil {
					return err
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if err == nil && string(got) != "v 5" {
					err = fmt.Errorf("status %d: %q", res.StatusCode, got)
				}
				return err
			})
			for range flips {
				var calls atomic.Int64
				nextAddr, nextSrv := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
					calls.Add(1)
					named("v")(w, r)
				})
				nb := NewBackend(nextAddr)
				old := s.Point(nb)
				require.NoError(t, old.Drain(ctx))
				srv.CloseClientConnections()
				srv.Close()
				require.NoError(t, old.Close())
				eventually(t, "a request on the new version", func() bool { return calls.Load() > 10 })
				srv = nextSrv
			}
			_, err := stop()
			require.NoError(t, err)
		})
	}
}

// Two switched back and forth: a roll-back goes to a drained, open backend.
func TestRollBackToDrainedBackend(t *testing.T) {
	ctx := testContext(t)
	addrA, _ := (&version{name: "a"}).start(t)
	addrB, _ := (&version{name: "b"}).start(t)
	a, b := NewBackend(addrA), NewBackend(addrB)
	s, front := serve(t, a)
	client := dialGRPC(t, front)
	stop := load(func() error {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
		return err
	})
	for range flips {
		require.NoError(t, s.Point(b).Drain(ctx))
		require.NoError(t, s.Point(a).Drain(ctx))
	}
	_, err := stop()
	require.NoError(t, err)
}

func TestStreamEndsOnItsVersion(t *testing.T) {
	ctx := testContext(t)
	addrA, _ := (&version{name: "a"}).start(t)
	addrB, _ := (&version{name: "b"}).start(t)
	a, b := NewBackend(addrA), NewBackend(addrB)
	s, front := serve(t, a)
	client := dialGRPC(t, front)
	stream, err := client.FullDuplexCall(ctx)
	require.NoError(t, err)
	ask := func(want string) {
		require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
		res, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, want, string(res.GetPayload().GetBody()))
	}
	ask("a")
	require.Same(t, a, s.Point(b))
	for range 10 {
		ask("a")
		res, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
		require.NoError(t, err)
		require.Equal(t, "b", res.GetServerId())
	}
	require.Equal(t, 1, a.InFlight())

	short, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, a.Drain(short), context.Canceled)

	drained := make(chan error, 1)
	go func() { drained <- a.Drain(ctx) }()
	ask("a")
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, receive(t, drained))
	require.Zero(t, a.InFlight())
}

func TestNoBackend(t *testing.T) {
	ctx := testContext(t)
	_, front := serve(t, nil)
	for _, h2 := range []bool{false, true} {
		res, err := newClient(t, h2).Get("http://" + front)
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
		require.Equal(t, "1", res.Header.Get("Retry-After"))
		require.Equal(t, msgNoVersion+"\n", body(t, res))
	}
	_, err := dialGRPC(t, front).UnaryCall(ctx, &testpb.SimpleRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, err, msgNoVersion)
}

func TestDeadBackend(t *testing.T) {
	ctx := testContext(t)
	l := listen(t)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	b := NewBackend(addr)
	_, front := serve(t, b)
	res, err := newClient(t, false).Post("http://"+front, "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	require.Equal(t, http.StatusBadGateway, res.StatusCode)
	require.Equal(t, msgNoAnswer+"\n", body(t, res))
	_, err = dialGRPC(t, front).UnaryCall(ctx, &testpb.SimpleRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, err, msgNoAnswer)
	require.NoError(t, b.Drain(ctx))
}

// A request that was given to a version which died before it could be dialed
// goes to the one that has replaced it meanwhile.
func TestDialErrorMovesOn(t *testing.T) {
	ctx := testContext(t)
	addr, _ := (&version{name: "b"}).start(t)
	httpAddr, _ := startHTTP(t, named("b"))
	for _, grpc := range []bool{true, false} {
		s := New(t.Logf)
		dead := NewBackend("127.0.0.1:1")
		require.NoError(t, dead.Close())
		s.Point(dead)
		x := &exchange{s: s, grpc: grpc}
		x.backend, x.pool = s.acquire(httptest.NewRequest(http.MethodPost, "/", nil))
		live := NewBackend(httpAddr)
		if grpc {
			live = NewBackend(addr)
		}
		s.Point(live)
		in, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://x/", bytes.NewReader([]byte("hello")))
		require.NoError(t, err)
		x.in = in
		x.body = newReplay(in, nil, s.buffers)
		out := in.Clone(ctx)
		out.Body, err = x.body.again()
		require.NoError(t, err)
		res, err := x.RoundTrip(out)
		require.NoError(t, err)
		if !grpc {
			require.Equal(t, "b 5", body(t, res))
		}
		require.Same(t, live, x.backend)
		require.Zero(t, dead.InFlight())
		require.Equal(t, 1, live.InFlight())
		require.NoError(t, live.Close())
	}
}

func TestCounterWaits(t *testing.T) {
	var c counter
	require.NoError(t, c.wait(t.Context()))
	c.inc()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.True(t, errors.Is(c.wait(ctx), context.DeadlineExceeded))
	done := make(chan error)
	for range 3 {
		go func() { done <- c.wait(t.Context()) }()
	}
	c.dec()
	for range 3 {
		require.NoError(t, receive(t, done))
	}
}
