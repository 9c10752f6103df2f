package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

func TestLog(t *testing.T) {
	var b bytes.Buffer
	log, err := newLog(&b, "json", "info")
	require.NoError(t, err)
	log.Debug("too much")
	require.Empty(t, b.String())
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	log.With("location", "web").InfoContext(trace.ContextWithSpanContext(t.Context(), span), "deployed", "version", "abc")
	var line map[string]string
	require.NoError(t, json.Unmarshal(b.Bytes(), &line))
	require.Equal(t, "01000000000000000000000000000000", line["trace_id"])
	require.Equal(t, "web", line["location"])
	require.Equal(t, "abc", line["version"])
	b.Reset()
	log.InfoContext(t.Context(), "deployed")
	require.NotContains(t, b.String(), "trace_id")

	log, err = newLog(&b, "text", "debug")
	require.NoError(t, err)
	b.Reset()
	log.Debug("too much")
	require.Contains(t, b.String(), `level=DEBUG msg="too much"`)
	_, err = newLog(&b, "xml", "info")
	require.ErrorContains(t, err, "say text or json")
	_, err = newLog(&b, "text", "loud")
	require.ErrorContains(t, err, "say debug, info, warn or error")
}
