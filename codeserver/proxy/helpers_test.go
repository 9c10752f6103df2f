package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// deadline bounds whatever a test waits for; nothing passes because of it.
const deadline = 60 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// NewBackend is a backend whose requests nobody else counts.
func NewBackend(addr string) *Backend { return NewMeasured(addr, new(Stats)) }

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

// logs collects what a Switch logged.
type logs struct{ lines chan string }

func (l *logs) logf(format string, args ...any) {
	select {
	case l.lines <- fmt.Sprintf(format, args...):
	default:
	}
}

func (l *logs) text() string {
	var b strings.Builder
	for {
		select {
		case line := <-l.lines:
			b.WriteString(line + "\n")
		default:
			return b.String()
		}
	}
}

// serve starts a Switch on b and returns its address. No test may log a panic.
func serve(t testing.TB, b *Backend) (*Switch, string) {
	t.Helper()
	log := &logs{make(chan string, 1000)}
	s := New(log.logf)
	s.Point(b)
	l := listen(t)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.NoError(t, <-done)
		text := log.text()
		require.NotContains(t, text, "panic")
		require.NotContains(t, text, "superfluous")
		if t.Failed() {
			t.Log(text)
		}
	})
	return s, l.Addr().String()
}

// version is a gRPC service that says which version it is.
type version struct {
	testpb.UnimplementedTestServiceServer
	name  string
	calls atomic.Int64
	// What a test wants it to do instead.
	unary    func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error)
	output   func(grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error
	input    func(grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error
	duplexed func(duplexServer) error
}

type duplexServer = grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]

func (v *version) UnaryCall(ctx context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	v.calls.Add(1)
	if v.unary != nil {
		return v.unary(ctx, req)
	}
	return &testpb.SimpleResponse{ServerId: v.name, Payload: req.GetPayload()}, nil
}

func (v *version) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	return v.output(s)
}

func (v *version) StreamingInputCall(s grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	return v.input(s)
}

// FullDuplexCall answers each message with the version's name.
func (v *version) FullDuplexCall(s duplexServer) error {
	v.calls.Add(1)
	if v.duplexed != nil {
		return v.duplexed(s)
	}
	for {
		_, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(output([]byte(v.name))); err != nil {
			return err
		}
	}
}

func output(body []byte) *testpb.StreamingOutputCallResponse {
	return &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: body}}
}

// start serves v and returns its address and its server.
func (v *version) start(t testing.TB, opts ...grpc.ServerOption) (string, *grpc.Server) {
	t.Helper()
	opts = append(opts, grpc.MaxRecvMsgSize(8<<20))
	srv := grpc.NewServer(opts...)
	testpb.RegisterTestServiceServer(srv, v)
	l := listen(t)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return l.Addr().String(), srv
}

func dialGRPC(t testing.TB, addr string, opts ...grpc.DialOption) testpb.TestServiceClient {
	t.Helper()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	conn, err := grpc.NewClient("passthrough:///"+addr, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return testpb.NewTestServiceClient(conn)
}

// startHTTP serves h over HTTP/1.1 only, like uvicorn.
func startHTTP(t testing.TB, h http.HandlerFunc) (string, *httptest.Server) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.Listener.Addr().String(), srv
}

func newClient(t testing.TB, h2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), MaxIdleConnsPerHost: 100}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetUnencryptedHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: deadline}
}

func body(t testing.TB, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(b)
}

func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %d", name, n)
	}
}

// receive fails the test instead of hanging when ch stays silent.
func receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(deadline):
		t.Fatal("nothing received in time")
		panic("unreachable")
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, deadline, 5*time.Millisecond, what)
}
