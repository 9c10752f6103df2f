package codeserver

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/pexpress/pexpress/cache/traces"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// traced makes each step of a deploy a span of the call that asked for it, if that is traced.
func traced(ctx context.Context, t *transition, r report) report {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return r
	}
	return func(st *codeserverpb.Stage) {
		now := time.Now()
		traces.Record(ctx, st.GetName(), now.Add(-st.GetTook().AsDuration()), now, append(t.attributes(),
			attribute.Int64("pexpress.fetched_bytes", st.GetFetchedBytes()), attribute.Int64("pexpress.fetched_blobs", st.GetFetchedBlobs()))...)
		r(st)
	}
}

func (t *transition) attributes() []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("pexpress.location", t.req.GetLocation()), attribute.String("pexpress.version", t.v.name),
	}
}

// traceFirst makes the version's first answer the last span of the trace of its deploy, whenever it comes.
func traceFirst(ctx context.Context, t *transition) {
	if t.run == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	attributes := t.attributes()
	t.v.stats.First(func(begin time.Time) { traces.Record(ctx, "first answer", begin, time.Now(), attributes...) })
}
