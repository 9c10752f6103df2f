package proxy

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func TestMetadataAndTrailers(t *testing.T) {
	ctx := testContext(t)
	v := &version{name: "a"}
	seen := make(chan metadata.MD, 100)
	v.unary = func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if _, ok := ctx.Deadline(); ok {
			md.Set("has-deadline", "yes")
		}
		seen <- md
		_ = grpc.SetHeader(ctx, metadata.Pairs("h", "1", "h", "2", "raw-bin", "\x00\xff"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("t", "1", "t", "2", "raw-bin", "\xff\x00"))
		if md.Get("fail") != nil {
			return nil, status.Error(codes.FailedPrecondition, "no – 100% no")
		}
		return &testpb.SimpleResponse{}, nil
	}
	addr, _ := v.start(t)
	_, front := serve(t, NewBackend(addr))
	client := dialGRPC(t, front, grpc.WithUserAgent("me/1"))
	ctx = metadata.AppendToOutgoingContext(ctx, "k", "1", "k", "2", "k-bin", "\x01\xfe", "x-forwarded-for", "6.6.6.6")
	var header, trailer metadata.MD
	_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
	require.NoError(t, err)
	md := receive(t, seen)
	require.Equal(t, []string{"1", "2"}, md.Get("k"))
	require.Equal(t, []string{"\x01\xfe"}, md.Get("k-bin"))
	require.Equal(t, []string{"127.0.0.1"}, md.Get("x-forwarded-for"))
	require.Equal(t, []string{front}, md.Get(":authority"))
	require.Equal(t, []string{"yes"}, md.Get("has-deadline"))
	require.True(t, strings.HasPrefix(md.Get("user-agent")[0], "me/1"))
	require.Equal(t, []string{"1", "2"}, header.Get("h"))
	require.Equal(t, []string{"\x00\xff"}, header.Get("raw-bin"))
	require.Equal(t, []string{"1", "2"}, trailer.Get("t"))
	require.Equal(t, []string{"\xff\x00"}, trailer.Get("raw-bin"))

	ctx = metadata.AppendToOutgoingContext(ctx, "fail", "1")
	_, err = client.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.Equal(t, "no – 100% no", status.Convert(err).Message())
	require.Equal(t, []string{"1", "2"}, trailer.Get("t"))
}

// A trailers-only response stays one: many times, because flushing its headers
// early was a matter of luck.
func TestTrailersOnly(t *testing.T) {
	ctx := testContext(t)
	v := &version{name: "a"}
	v.unary = func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return nil, status.Error(codes.NotFound, "nothing")
	}
	v.duplexed = func(duplexServer) error { return status.Error(codes.NotFound, "nothing") }
	addr, _ := v.start(t)
	_, front := serve(t, NewBackend(addr))
	client := dialGRPC(t, front)
	for range 500 {
		var header metadata.MD
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.Header(&header))
		require.Equal(t, codes.NotFound, status.Code(err), "%v", err)
		require.Empty(t, header)
		stream, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		_, err = stream.Recv() // the client's side stays open
		require.Equal(t, codes.NotFound, status.Code(err), "%v", err)
		require.Empty(t, must(stream.Header()))
	}
	_, err := client.EmptyCall(ctx, &testpb.Empty{})
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

func must[T any](v T, _ error) T { return v }

// The version speaks first, and the client only then.
func TestHeadersBeforeAnyMessage(t *testing.T) {
	ctx := testContext(t)
	v := &version{name: "a"}
	v.duplexed = func(s duplexServer) error {
		if err := s.SendHeader(metadata.Pairs("early", "yes")); err != nil {
			return err
		}
		_, err := s.Recv()
		return err
	}
	addr, _ := v.start(t)
	_, front := serve(t, NewBackend(addr))
	stream, err := dialGRPC(t, front).FullDuplexCall(ctx)
	require.NoError(t, err)
	header, err := stream.Header()
	require.NoError(t, err)
	require.Equal(t, []string{"yes"}, header.Get("early"))
	require.NoError(t, stream.CloseSend())
}

func TestCancelReachesVersion(t *testing.T) {
	ctx := testContext(t)
	v := &version{name: "a"}
	started, ended := make(chan struct{}, 1), make(chan error, 1)
	hold := func(ctx context.Context) error {
		started <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	v.unary = func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return nil, hold(ctx)
	}
	v.duplexed = func(s duplexServer) error {
		_ = s.Send(output([]byte("x")))
		return hold(s.Context())
	}
	addr, _ := v.start(t)
	b := NewBackend(addr)
	_, front := serve(t, b)
	client := dialGRPC(t, front)

	callCtx, cancel := context.WithCancel(ctx)
	go func() { receive(t, started); cancel() }()
	_, err := client.UnaryCall(callCtx, &testpb.SimpleRequest{})
	require.Equal(t, codes.Canceled, status.Code(err))
	require.ErrorIs(t, receive(t, ended), context.Canceled)

	callCtx, cancel = context.WithCancel(ctx)
	stream, err := client.FullDuplexCall(callCtx)
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	receive(t, started)
	cancel()
	require.ErrorIs(t, receive(t, ended), context.Canceled)
	require.NoError(t, b.Drain(ctx))
}

func TestVersionDiesMidStream(t *testing.T) {
	ctx := testContext(t)
	for name, kill := range map[string]func(*Backend, *grpc.Server){
		"process": func(_ *Backend, srv *grpc.Server) { srv.Stop() },
		"close":   func(b *Backend, _ *grpc.Server) { _ = b.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			v := &version{name: "a"}
			v.output = func(s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
				_ = s.Send(output([]byte("x")))
				<-s.Context().Done()
				return s.Context().Err()
			}
			addr, srv := v.start(t)
			b := NewBackend(addr)
			_, front := serve(t, b)
			stream, err := dialGRPC(t, front).StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
			require.NoError(t, err)
			_, err = stream.Recv()
			require.NoError(t, err)
			kill(b, srv)
			_, err = stream.Recv()
			require.Contains(t, []codes.Code{codes.Unavailable, codes.Internal}, status.Code(err), "%v", err)
			require.NoError(t, b.Drain(ctx))
		})
	}
}

// The version resets a stream before it answers, while the client is silent:
// nothing may wait for the client's next byte.
func TestVersionDiesBeforeItsAnswer(t *testing.T) {
	ctx := testContext(t)
	v := &version{name: "a"}
	started := make(chan struct{})
	v.duplexed = func(s duplexServer) error {
		close(started)
		<-s.Context().Done()
		return s.Context().Err()
	}
	addr, _ := v.start(t)
	b := NewBackend(addr)
	_, front := serve(t, b)
	stream, err := dialGRPC(t, front).FullDuplexCall(ctx)
	require.NoError(t, err)
	receive(t, started)
	require.NoError(t, b.Close())
	_, err = stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	require.NoError(t, b.Drain(ctx))
}

// A version that keeps sending its clients away fails no call.
func TestGoAwayOfVersion(t *testing.T) {
	ctx := testContext(t)
	v := &version{name: "a"}
	addr, _ := v.start(t, grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: 50 * time.Millisecond,
	}))
	_, front := serve(t, NewBackend(addr))
	client := dialGRPC(t, front)
	stop := load(func() error {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 20<<10)}})
		return err
	})
	stopStreams := load(func() error {
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		for range 3 {
			if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
				return err
			}
			if _, err := stream.Recv(); err != nil {
				return err
			}
		}
		return stream.CloseSend()
	})
	time.Sleep(3 * time.Second) // sixty connections
	_, err := stop()
	require.NoError(t, err)
	_, err = stopStreams()
	require.NoError(t, err)
}

func TestShutdownSendsGoAway(t *testing.T) {
	ctx := testContext(t)
	addr, _ := (&version{name: "a"}).start(t)
	s, front := serve(t, NewBackend(addr))
	_, other := serve(t, NewBackend(addr))
	// The client finds the other proxy when the first sends it away.
	address := make(chan string, 1)
	address <- front
	client := dialGRPC(t, front, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		to := other
		select {
		case to = <-address:
		default:
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", to)
	}))
	stream, err := client.FullDuplexCall(ctx)
	require.NoError(t, err)
	ask := func() {
		require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
		_, err := stream.Recv()
		require.NoError(t, err)
	}
	ask()
	stop := load(func() error {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.WaitForReady(true))
		return err
	})
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(ctx) }()
	eventually(t, "calls move to the other proxy", func() bool {
		var p peer.Peer
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.Peer(&p), grpc.WaitForReady(true))
		require.NoError(t, err)
		return p.Addr.String() == other
	})
	ask() // what is in flight goes on
	select {
	case err := <-down:
		t.Fatalf("shut down with a stream in flight: %v", err)
	default:
	}
	require.NoError(t, stream.CloseSend())
	require.NoError(t, receive(t, down))
	_, err = stop()
	require.NoError(t, err)
}

func TestIsGRPC(t *testing.T) {
	for ct, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "Application/GRPC; charset=x": true,
		"application/grpc-web": false, "application/grpcx": false, "text/plain": false, "": false,
	} {
		r := &http.Request{ProtoMajor: 2, Header: http.Header{"Content-Type": {ct}}}
		require.Equal(t, want, IsGRPC(r), ct)
		r.ProtoMajor = 1
		require.False(t, IsGRPC(r), ct)
	}
}
