package observe

import (
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pexpress/pexpress/cache/traces"
)

// Traced has a span made of each request to next.
func Traced(t *traces.Traces, next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := t.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.Tracer().Start(ctx, httpMethod(r), trace.WithSpanKind(trace.SpanKindServer))
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
func (v *Observer) Transport(base http.RoundTripper, t *traces.Traces) http.RoundTripper {
	return &transport{v: v, t: t, base: base}
}

type transport struct {
	v    *Observer
	t    *traces.Traces
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
		ctx, span = s.t.Tracer().Start(ctx, "S3 "+verb, trace.WithSpanKind(trace.SpanKindClient))
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
