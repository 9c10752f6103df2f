package main

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// newLog returns the server's log: a line of text or a JSON object for each thing that happens.
func newLog(w io.Writer, format, level string) (*slog.Logger, error) {
	var o slog.HandlerOptions
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q: say debug, info, warn or error", level)
	}
	o.Level = l
	switch format {
	case "text":
		return slog.New(&inTrace{slog.NewTextHandler(w, &o)}), nil
	case "json":
		return slog.New(&inTrace{slog.NewJSONHandler(w, &o)}), nil
	}
	return nil, usagef("--log-format %q: say text or json", format)
}

// inTrace adds to what is logged of a call that is traced which trace that is.
type inTrace struct{ slog.Handler }

// Handle implements slog.Handler.
func (h *inTrace) Handle(ctx context.Context, r slog.Record) error {
	if s := trace.SpanContextFromContext(ctx); s.IsValid() {
		r.AddAttrs(slog.String("trace_id", s.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *inTrace) WithAttrs(a []slog.Attr) slog.Handler { return &inTrace{h.Handler.WithAttrs(a)} }

// WithGroup implements slog.Handler.
func (h *inTrace) WithGroup(name string) slog.Handler { return &inTrace{h.Handler.WithGroup(name)} }
