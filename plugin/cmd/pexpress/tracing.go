package main

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pexpress/pexpress/cache/traces"
)

// tracing is the trace of one command; see package traces. It is one of none unless the environment names a collector.
type tracing struct {
	traces *traces.Traces
	span   trace.Span
	mu     sync.Mutex
	failed error // the last that was not sent
}

// begin makes the command a span, of the trace that TRACEPARENT names if there is one: what is done by a command's context is
// within it. Commands go on without a trace that cannot be made.
func (t *tracing) begin(c *cobra.Command, warn func(string)) {
	var err error
	if t.traces, err = traces.Open(c.Context(), "pexpress", version); err != nil {
		warn(err.Error())
	}
	if t.traces == nil {
		return
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.failed = err
	}))
	ctx := t.traces.Extract(t.traces.With(c.Context()), propagation.MapCarrier{
		"traceparent": os.Getenv("TRACEPARENT"), "tracestate": os.Getenv("TRACESTATE"), "baggage": os.Getenv("BAGGAGE"),
	})
	if c.Name() != "dev" { // of which each deploy is a trace
		ctx, t.span = t.traces.Tracer().Start(ctx, c.CommandPath())
	}
	c.SetContext(ctx)
}

// flushTime is how long a command that is done waits for a collector.
const flushTime = time.Second

// end sends the trace.
func (t *tracing) end(result error, warn func(string)) {
	if t.traces == nil {
		return
	}
	if t.span != nil {
		t.span.SetAttributes(attribute.Int("process.exit.code", exitCode(result)))
		traces.End(t.span, result)
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	err := t.traces.Close(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		err = t.failed
	}
	if err != nil {
		warn("the trace was not sent: " + err.Error())
	}
}

// step is a span of something that a command does.
func step(ctx context.Context, name string, do func(context.Context) error) error {
	ctx, span := traces.Start(ctx, name)
	err := do(ctx)
	traces.End(span, err)
	return err
}
