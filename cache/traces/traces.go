// Package traces sends spans to an OpenTelemetry collector, if the standard OTEL_* variables name one. Where they do not,
// nothing is made and nothing is attached to connections: a call costs what it costs without this package.
package traces

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// Traces sends spans. The nil Traces sends none.
type Traces struct{ provider *sdktrace.TracerProvider }

// carried is how a call says which span it is of: W3C's traceparent, tracestate and baggage.
func carried() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// Open starts tracing as the standard OTEL_* variables say, and returns nil if they name no endpoint. Sampling, headers,
// time limits and resource attributes follow them, too; service is the name if they do not say another.
func Open(ctx context.Context, service, version string) (*Traces, error) {
	disabled := strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none"
	if disabled || first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
		return nil, nil //nolint:nilnil // the nil Traces is of use
	}
	var exporter sdktrace.SpanExporter
	var err error
	switch p := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); p {
	case "grpc":
		exporter, err = otlptracegrpc.New(ctx)
	case "", "http/protobuf":
		exporter, err = otlptracehttp.New(ctx)
	default:
		return nil, fmt.Errorf("traces: OTEL_EXPORTER_OTLP_PROTOCOL=%s: use grpc or http/protobuf", p)
	}
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	named := resource.NewSchemaless(attribute.String("service.name", service), attribute.String("service.version", version))
	r, err := resource.Merge(named, resource.Environment())
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	return &Traces{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(r))}, nil
}

// first returns the first of the variables that is set.
func first(names ...string) string {
	for _, n := range names {
		if v := os.Getenv(n); v != "" {
			return v
		}
	}
	return ""
}

// Close sends what is left, until ctx ends.
func (t *Traces) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

const scope = "github.com/pexpress/pexpress/cache/traces"

// Tracer returns what makes spans that belong to no other.
func (t *Traces) Tracer() trace.Tracer {
	if t == nil {
		return noop.NewTracerProvider().Tracer(scope)
	}
	return t.provider.Tracer(scope)
}

// Extract returns ctx with the span that a caller said it is in.
func (t *Traces) Extract(ctx context.Context, from propagation.TextMapCarrier) context.Context {
	if t == nil {
		return ctx
	}
	return carried().Extract(ctx, from)
}

// ServerOptions has a gRPC server make a span of each call.
func (t *Traces) ServerOptions() []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithPropagators(carried()),
	))}
}

type tracesKey struct{}

// With returns ctx so that clients which are made with it send spans; see DialOptions.
func (t *Traces) With(ctx context.Context) context.Context {
	if t == nil {
		return ctx
	}
	return context.WithValue(ctx, tracesKey{}, t)
}

// DialOptions has a gRPC client make a span of each call that is made within another span, and say so to the server. There
// are none if ctx does not come from With.
func DialOptions(ctx context.Context) []grpc.DialOption {
	t, ok := ctx.Value(tracesKey{}).(*Traces)
	if !ok {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(&within{otelgrpc.NewClientHandler(
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithPropagators(carried()),
	)})}
}

// within leaves out calls that are of no trace: what a server asks of its cache by itself, every few seconds.
type within struct{ stats.Handler }

// TagRPC implements stats.Handler.
func (w *within) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return w.Handler.TagRPC(ctx, info)
}

// HandleRPC implements stats.Handler.
func (w *within) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		w.Handler.HandleRPC(ctx, s)
	}
}

// Start begins a span within that of ctx. Without one it makes none, and the span is one that does nothing.
func Start(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer(scope).Start(ctx, name, trace.WithAttributes(attributes...))
}

// Record makes a span, within that of ctx, of something that has ended.
func Record(ctx context.Context, name string, begin, end time.Time, attributes ...attribute.KeyValue) {
	tracer := trace.SpanFromContext(ctx).TracerProvider().Tracer(scope)
	_, span := tracer.Start(ctx, name, trace.WithTimestamp(begin), trace.WithAttributes(attributes...))
	span.End(trace.WithTimestamp(end))
}

// End ends a span, with the first line of why it failed, if it did.
func End(span trace.Span, err error) {
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		span.SetStatus(codes.Error, text)
	}
	span.End()
}
