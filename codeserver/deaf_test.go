package codeserver

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// deafStream is one whose client does not take the end of a deploy.
type deafStream struct {
	grpc.ServerStreamingServer[codeserverpb.DeployEvent]
	ctx  context.Context //nolint:containedctx // a stream has one
	sent chan struct{}
}

func (s *deafStream) Context() context.Context { return s.ctx }

func (s *deafStream) Send(ev *codeserverpb.DeployEvent) error {
	if ev.GetDeployed() == nil {
		return nil
	}
	close(s.sent)
	<-s.ctx.Done()
	return s.ctx.Err()
}

// TestDeafClient: the end of the codeserver does not wait for a client who does not take its answer.
func TestDeafClient(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream := &deafStream{ctx: ctx, sent: make(chan struct{})}
	over := make(chan error, 1)
	go func() { over <- (&service{server: h.s}).Deploy(webRequest(h.spec(webApp("one"))), stream) }()
	<-stream.sent
	closed := make(chan error, 1)
	go func() { closed <- h.s.Close(t.Context()) }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		require.Fail(t, "it waits for the client")
	}
	require.Empty(t, over)
	cancel()
	require.ErrorIs(t, <-over, context.Canceled)
}
