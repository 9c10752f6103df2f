package observe

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
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
	"google.golang.org/grpc"
)

// Traces sends spans to an OpenTelemetry collector. The nil Traces sends none.
type Traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	carried  propagation.TextMapPropagator
}

// OpenTraces starts tracing as the standard OTEL_* variables say, and returns nil if they name no endpoint. Sampling,
// headers, time limits and resource attributes follow them, too.
func OpenTraces(ctx context.Context, version string) (*Traces, error) {
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
	named := resource.NewSchemaless(attribute.String("service.name", "pexcache"), attribute.String("service.version", version))
	r, err := resource.Merge(named, resource.Environment())
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(r))
	return &Traces{
		provider: p, tracer: p.Tracer("github.com/pexpress/pexpress/cache/observe"),
		carried: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}, nil
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

// Close sends what is left.
func (t *Traces) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// ServerOptions has a gRPC server make a span of each call.
func (t *Traces) ServerOptions() []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithPropagators(t.carried),
	))}
}

// HTTP has a span made of each request to next.
func (t *Traces) HTTP(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := t.carried.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.tracer.Start(ctx, httpMethod(r), trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		seen := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(seen, r.WithContext(ctx))
		span.SetAttributes(attribute.Int("http.response.status_code", seen.code))
		if seen.code >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(seen.code))
		}
	})
}

// Transport returns a RoundTripper for requests to S3: each attempt is measured, and is a span of the call that it is for.
// t may be nil. The bucket's keys are not in spans: there is nothing to group by.
func (v *Observer) Transport(base http.RoundTripper, t *Traces) http.RoundTripper {
	return &transport{v: v, t: t, base: base}
}

type transport struct {
	v    *Observer
	t    *Traces
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (s *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, verb := r.Context(), r.Method
	if verb == http.MethodGet && r.URL.Query().Has("list-type") {
		verb = "LIST"
	}
	var span trace.Span
	if s.t != nil {
		ctx, span = s.t.tracer.Start(ctx, "S3 "+verb, trace.WithSpanKind(trace.SpanKindClient))
		defer span.End()
		r = r.WithContext(ctx)
	}
	start := time.Now()
	resp, err := s.base.RoundTrip(r)
	code := "error"
	if err == nil {
		code = strconv.Itoa(resp.StatusCode)
	}
	s.v.s3.WithLabelValues(verb, code).Observe(time.Since(start).Seconds())
	if span != nil {
		span.SetAttributes(attribute.String("http.response.status_code", code))
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
	}
	return resp, err
}
