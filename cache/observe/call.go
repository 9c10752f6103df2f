package observe

import (
	"context"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
)

// call is one request while it runs. What is found out about it on the way down is written into it.
type call struct {
	id       string
	method   string
	start    time.Time
	instance atomic.Pointer[string]
	mnemonic atomic.Pointer[string]
	who      atomic.Pointer[string]
	bytes    atomic.Int64
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// begin counts a request in.
func (v *Observer) begin(ctx context.Context, method string) (context.Context, *call) {
	v.active.Add(1)
	c := &call{method: method, start: v.o.Now(), id: v.run + "-" + strconv.FormatUint(v.calls.Add(1), 36)}
	return context.WithValue(ctx, callKey{}, c), c
}

// RequestID returns the number of the request that ctx belongs to, as logs and answers have it.
func RequestID(ctx context.Context) string {
	if c := callOf(ctx); c != nil {
		return c.id
	}
	return ""
}

// failure sorts codes by whom they concern.
type failure int

const (
	fine   failure = iota // done, or what clients ask for every day: a miss, a call given up
	theirs                // the client should do something else
	ours                  // whoever runs the server should look
)

// end counts a request out.
func (v *Observer) end(ctx context.Context, c *call, code string, f failure, err error) {
	v.active.Add(-1)
	took := v.o.Now().Sub(c.start)
	instance := text(&c.instance)
	v.requests.WithLabelValues(c.method, instance, code).Inc()
	v.seconds.WithLabelValues(c.method, instance).Observe(took.Seconds())
	v.total.requests.Add(1)
	if f == ours {
		v.total.errors.Add(1)
	}
	v.slow.add(took, c, code)
	level := map[failure]slog.Level{fine: slog.LevelDebug, theirs: slog.LevelInfo, ours: slog.LevelWarn}[f]
	if !v.o.Log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request", c.id), slog.String("method", c.method), slog.String("instance", instance),
		slog.String("principal", text(&c.who)), slog.String("code", code),
		slog.Float64("ms", float64(took.Microseconds())/1000), slog.Int64("bytes", c.bytes.Load()),
	}
	if m := requestMetadata(ctx); m != nil {
		attrs = append(attrs, slog.String("mnemonic", short(m.GetActionMnemonic())), slog.String("target", short(m.GetTargetId())),
			slog.String("invocation", short(m.GetToolInvocationId())))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", short(err.Error())))
	}
	v.o.Log.LogAttrs(ctx, level, "request", attrs...)
}

func text(p *atomic.Pointer[string]) string {
	if s := p.Load(); s != nil {
		return *s
	}
	return ""
}

// short cuts what a client may have made long.
func short(s string) string {
	const limit = 500
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}

const metadataKey = "build.bazel.remote.execution.v2.requestmetadata-bin"

// requestMetadata returns what the client says of the build that a call is for, nil if it says nothing.
func requestMetadata(ctx context.Context) *repb.RequestMetadata {
	values := metadata.ValueFromIncomingContext(ctx, metadataKey)
	if len(values) == 0 {
		return nil
	}
	m := new(repb.RequestMetadata)
	if err := proto.Unmarshal([]byte(values[0]), m); err != nil {
		return nil // it is advice: a call does not fail for it
	}
	return m
}

// entered notes what is known once the call has found its instance.
func (c *call) entered(ctx context.Context, family string) {
	who := cache.PrincipalOf(ctx)
	c.instance.Store(&family)
	c.who.Store(&who)
}
