package main

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/pexpress/pexpress/cache/traces"
)

// spans are the server's, of calls that say which trace they are of, and of the others.
type spans struct {
	*traces.Traces
	log *slog.Logger
}

func openTraces(ctx context.Context, log *slog.Logger) (*spans, error) {
	t, err := traces.Open(ctx, "codeserver", version)
	if t != nil {
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces are not sent", "error", err) }))
	}
	return &spans{t, log}, err
}

// close sends what is left. A collector that is away is not waited for long: the host may be going down.
func (s *spans) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		s.log.Warn("the last traces were not sent", "error", err)
	}
}
