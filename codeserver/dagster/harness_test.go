package dagster

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/codeserver/proxy"
)

// raw is a codec that leaves messages encoded.
type raw struct{}

func (raw) Name() string                       { return "proto" }
func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte{}, data...); return nil }

// codeServer answers as a Dagster code server that executes some runs.
type codeServer struct {
	runs    []string
	answers map[string]string // JSON in the answer's field 1, by method
	silent  bool              // it does not answer

	mu  sync.Mutex
	got []string // method and message of each call
}

func (c *codeServer) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	method = strings.TrimPrefix(method, service)
	c.mu.Lock()
	c.got = append(c.got, method+" "+string(message))
	c.mu.Unlock()
	if c.silent {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	answer, ok := c.answers[method]
	if method == "GetCurrentRuns" && !ok {
		runs, err := json.Marshal(append([]string{}, c.runs...))
		if err != nil {
			return err
		}
		answer, ok = `{"__class__": "GetCurrentRunsResult", "current_runs": `+string(runs)+`, "serializable_error_info": null}`, true
	}
	if !ok {
		return status.Error(codes.Unimplemented, method)
	}
	reply := text(answer)
	return stream.SendMsg(&reply)
}

// calls returns the calls that the server was asked for, but for our own questions about runs.
func (c *codeServer) calls() (calls []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.got {
		if call != "GetCurrentRuns " {
			calls = append(calls, call)
		}
	}
	c.got = nil
	return calls
}

func (c *codeServer) start(t *testing.T) *proxy.Backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(c.handle))
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	b := proxy.NewMeasured(l.Addr().String(), new(proxy.Stats))
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// location is a switch with the routing, and a client on it.
type location struct {
	*proxy.Switch
	t    *testing.T
	conn *grpc.ClientConn
}

func newLocation(t *testing.T, active bool, opts ...grpc.CallOption) *location {
	t.Helper()
	sw := proxy.New(t.Logf)
	Route(sw, func() bool { return active }, slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = sw.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(append(opts, grpc.ForceCodec(raw{}))...), grpc.WithDisableRetry())
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = conn.Close()
		_ = sw.Close()
	})
	return &location{sw, t, conn}
}

// call makes a call with an encoded message and returns the text of the answer.
func (l *location) call(method string, message []byte) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var reply []byte
	if err := l.conn.Invoke(ctx, service+method, &message, &reply); err != nil {
		return "", err
	}
	said, err := field(reply, 1)
	require.NoError(l.t, err)
	return said, nil
}
