package server

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"
)

// Limits keep clients that are broken, slow on purpose or too many from taking a gRPC server's memory.
type Limits struct {
	Calls      int64         // at a time, of all connections together; those above it are told to come back
	Streams    uint32        // at a time, of one connection
	Message    int           // bytes of one message
	Headers    uint32        // bytes of the headers of one call
	Handshake  time.Duration // from connecting to the end of TLS's and HTTP/2's greetings
	Idle       time.Duration // without 64 KiB that the client was to send, or to take, or the end of a call; see progress
	Connection time.Duration // without a call
}

// DefaultLimits suit a server that others depend on. A message is twice what a batch may hold: clients count their blobs
// against that limit, and what stands around them comes on top.
var DefaultLimits = Limits{
	Calls: 10_000, Streams: 1_000, Message: 8 << 20, Headers: 64 << 10,
	Handshake: 10 * time.Second, Idle: time.Minute, Connection: 5 * time.Minute,
}

// Options returns DefaultLimits as the options of a gRPC server.
func Options() []grpc.ServerOption { return DefaultLimits.Options() }

// Options returns the limits as the options of a gRPC server.
func (l Limits) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newLeanCodec()),
		// A seventh of a small read was growing the stack of a new goroutine. Calls that find no worker idle get one anyway.
		grpc.NumStreamWorkers(uint32(4 * runtime.GOMAXPROCS(0))),
		grpc.MaxConcurrentStreams(l.Streams),
		grpc.MaxRecvMsgSize(l.Message),
		grpc.MaxHeaderListSize(l.Headers),
		grpc.ConnectionTimeout(l.Handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: l.Connection, Time: l.Idle, Timeout: l.Idle / 2}),
		// Builds keep connections open between calls, and some clients ping often.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.InTapHandle(l.tap()),
		grpc.ChainUnaryInterceptor(watchUnary),
		grpc.ChainStreamInterceptor(watchStream),
	}
}

// errIdle is why a call was ended.
var errIdle = errors.New("the client was idle for too long")

type watchKey struct{}

// watch ends a call whose client lets it wait. It runs only while the server waits for the client.
type watch struct {
	timer *time.Timer
	idle  time.Duration
}

// tap is called when a call's headers are there, before any message. gRPC knows no time limit for a message that does
// not come, but it stops waiting when the context ends that is returned here.
func (l Limits) tap() tap.ServerInHandle {
	var calls atomic.Int64
	return func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		if calls.Add(1) > l.Calls {
			calls.Add(-1)
			return nil, status.Errorf(codes.ResourceExhausted, "more than %d calls at a time: try again later", l.Calls)
		}
		ended := ctx
		ctx, cancel := context.WithCancelCause(ctx)
		w := &watch{idle: l.Idle, timer: time.AfterFunc(l.Idle, func() { cancel(errIdle) })}
		context.AfterFunc(ended, func() {
			calls.Add(-1)
			w.timer.Stop()
			cancel(nil)
		})
		return idleContext{context.WithValue(ctx, watchKey{}, w)}, nil
	}
}

// idleContext is the context of a call that may end because its client is idle. gRPC takes the code of such a call from
// Err: that the call was canceled would be wrong, and hide why.
type idleContext struct{ context.Context }

func (c idleContext) Err() error {
	err := c.Context.Err()
	if err != nil && errors.Is(context.Cause(c.Context), errIdle) {
		return context.DeadlineExceeded
	}
	return err
}

// watchUnary ends the watch over a call whose one message is there.
func watchUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if w, ok := ctx.Value(watchKey{}).(*watch); ok {
		w.timer.Stop()
	}
	return handler(ctx, req)
}

// watchStream watches over each message of a stream.
func watchStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	w, ok := stream.Context().Value(watchKey{}).(*watch)
	if !ok {
		return handler(srv, stream)
	}
	w.timer.Stop()
	err := handler(srv, &watchedStream{stream, w, newProgress(w.idle), newProgress(w.idle)})
	if err != nil && errors.Is(context.Cause(stream.Context()), errIdle) {
		return status.Errorf(codes.DeadlineExceeded, "%v: %v", errIdle, err)
	}
	return err
}

type watchedStream struct {
	grpc.ServerStream
	watch   *watch
	in, out *progress
}

// RecvMsg implements grpc.ServerStream.
func (s *watchedStream) RecvMsg(m any) error {
	s.watch.timer.Reset(s.in.wait())
	defer s.watch.timer.Stop()
	err := s.ServerStream.RecvMsg(m)
	s.in.done(messageSize(m))
	return err
}

// SendMsg implements grpc.ServerStream.
func (s *watchedStream) SendMsg(m any) error {
	n := messageSize(m) // before it is gone
	s.watch.timer.Reset(s.out.wait())
	defer s.watch.timer.Stop()
	err := s.ServerStream.SendMsg(m)
	s.out.done(n)
	return err
}

// messageSize is about how many bytes a message has.
func messageSize(m any) int {
	switch m := m.(type) {
	case interface{ GetData() []byte }:
		return len(m.GetData())
	case proto.Message:
		return proto.Size(m)
	}
	return 0
}
