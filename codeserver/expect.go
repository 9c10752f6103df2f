package codeserver

import (
	"context"
	"time"

	"google.golang.org/grpc/stats"
)

// expectDeploy is how long after a connection to the control API a deploy is expected at any time: pexpress connects before it builds.
const expectDeploy = 250 * time.Millisecond

// expectation has somebody get ready, for as long, when a client connects. It implements stats.Handler.
type expectation func(time.Duration)

// HandleConn implements stats.Handler.
func (e expectation) HandleConn(_ context.Context, st stats.ConnStats) {
	if _, begins := st.(*stats.ConnBegin); begins {
		e(expectDeploy)
	}
}

// TagConn implements stats.Handler.
func (expectation) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// TagRPC implements stats.Handler.
func (expectation) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (expectation) HandleRPC(context.Context, stats.RPCStats) {}
