package remote

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bazelbuild/remote-apis-sdks/go/pkg/client"
	"github.com/bazelbuild/remote-apis-sdks/go/pkg/retry"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// patience is how long a cache may say nothing. One that is stopped, or behind a network that drops what is sent, would
// hold whoever asks it for as long as the SDK tries again, and its streams for ever: gRPC's own keepalive would end that,
// but many servers take pings more often than every five minutes for an attack.
type patience struct {
	connect time.Duration // until a connection that was taken is given up
	call    time.Duration // until a call with one small answer ends
	batch   time.Duration // until one with megabytes either way ends
	stream  time.Duration // between two messages of a stream
	again   time.Duration // until the cache says anything at all, once it has said nothing for as long as one of these
}

var defaultPatience = patience{
	connect: 10 * time.Second, call: 30 * time.Second, batch: time.Minute, stream: time.Minute, again: 5 * time.Second,
}

// dialOptions are those of the connection.
func (p patience) dialOptions() []grpc.DialOption {
	c := &conversation{patience: p}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.unary), grpc.WithChainStreamInterceptor(c.streamed),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: p.connect}),
	}
}

// options are those of the SDK's client. Executions are not limited: their streams say nothing for as long as they run.
func (p patience) options() []client.Opt {
	return []client.Opt{
		client.RPCTimeouts{
			"default": p.call, "GetCapabilities": p.call, "BatchUpdateBlobs": p.batch, "BatchReadBlobs": p.batch, "GetTree": p.batch,
			"Execute": 0, "WaitExecution": 0,
		},
		&client.Retrier{Backoff: client.RetryTransient().Backoff, ShouldRetry: worthAnother},
	}
}

// worthAnother reports whether a call that failed is made again: not if all its time passed without an answer.
func worthAnother(err error) bool {
	return !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded && retry.TransientOnly(err)
}

// limited are the streams that a cache always has something to say on.
var limited = map[string]bool{
	repb.ContentAddressableStorage_GetTree_FullMethodName: true,
	"/google.bytestream.ByteStream/Read":                  true,
	"/google.bytestream.ByteStream/Write":                 true,
}

// conversation is what is known of whether the cache answers: who makes one call after the other does not wait for each.
type conversation struct {
	patience
	silent atomic.Bool // the last call got no answer in time
}

// unary makes a call with one answer.
func (c *conversation) unary(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	if method != repb.Capabilities_GetCapabilities_FullMethodName {
		if err := c.ask(ctx, conn); err != nil {
			return err
		}
	}
	err := invoke(ctx, method, req, reply, conn, opts...)
	c.heard(err)
	return err
}

// heard notes how a call ended.
func (c *conversation) heard(err error) {
	if code := status.Code(err); code != codes.Canceled { // by who made it: that says nothing
		c.silent.Store(code == codes.DeadlineExceeded)
	}
}

// ask has a cache that was silent say something, whatever it is.
func (c *conversation) ask(ctx context.Context, conn *grpc.ClientConn) error {
	if !c.silent.Load() {
		return nil
	}
	soon, cancel := context.WithTimeout(ctx, c.again)
	defer cancel()
	_, _ = repb.NewCapabilitiesClient(conn).GetCapabilities(soon, &repb.GetCapabilitiesRequest{}) // by way of unary
	if ctx.Err() == nil && c.silent.Load() {
		return status.Error(codes.DeadlineExceeded, errSilent.Error()+" again")
	}
	return ctx.Err()
}

// streamed ends a stream on which nothing moves.
func (c *conversation) streamed(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if !limited[method] {
		return open(ctx, desc, conn, method, opts...)
	}
	if err := c.ask(ctx, conn); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &watched{conversation: c, cancel: cancel, ctx: ctx, single: !desc.ServerStreams}
	err := s.within(func() (err error) {
		s.ClientStream, err = open(ctx, desc, conn, method, opts...)
		return err
	})
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return s, nil
}

// watched is a stream whose every step may take so long.
type watched struct {
	grpc.ClientStream
	*conversation
	ctx    context.Context //nolint:containedctx // the stream's
	cancel context.CancelCauseFunc
	single bool // the cache answers once
}

// errSilent is the cause of a stream's end that the cache said nothing on.
var errSilent = errors.New("nothing was heard of the cache")

func (s *watched) within(step func() error) error {
	timer := time.AfterFunc(s.stream, func() { s.cancel(errSilent) })
	err := step()
	timer.Stop()
	if err == nil {
		return nil
	}
	if errors.Is(context.Cause(s.ctx), errSilent) {
		err = status.Error(codes.DeadlineExceeded, fmt.Sprintf("%s for %s", errSilent, s.stream))
	}
	s.heard(err)
	return err
}

func (s *watched) SendMsg(m any) error {
	return s.within(func() error { return s.ClientStream.SendMsg(m) })
}

// RecvMsg lets go of the context with the stream's last message.
func (s *watched) RecvMsg(m any) error {
	err := s.within(func() error { return s.ClientStream.RecvMsg(m) })
	if err != nil || s.single {
		s.cancel(nil)
	}
	return err
}
