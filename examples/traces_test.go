package examples

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// collector is a real receiver of OTLP over gRPC.
type collector struct {
	coltrace.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []received
}

// received is a span and the process that it comes from.
type received struct {
	*tracepb.Span
	service string
}

func (r received) attribute(key string) string {
	for _, a := range r.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// Export implements coltrace.TraceServiceServer.
func (c *collector) Export(_ context.Context, req *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		service := ""
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans = append(c.spans, received{s, service})
			}
		}
	}
	return &coltrace.ExportTraceServiceResponse{}, nil
}

func (c *collector) all() []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// serveCollector has all processes that are started from now on send their spans to a collector.
func serveCollector(t *testing.T) *collector {
	c := &collector{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer()
	coltrace.RegisterTraceServiceServer(g, c)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	return c
}

// TestTrace: a deploy is one trace, from the command to the new version's first answer, through the codeserver and the cache.
func TestTrace(t *testing.T) {
	c := serveCollector(t)
	p := servePexcache(t)
	h := newHost(t, webProject("one"))
	h.remote = "grpc://" + p.grpc
	h.start()
	traceID, parent := "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	t.Setenv("TRACEPARENT", fmt.Sprintf("00-%s-%s-01", traceID, parent))
	address, _ := h.deploy()
	t.Setenv("TRACEPARENT", "")
	require.Equal(t, "one", h.get(address, "/"))
	require.Equal(t, "one", h.get(address, "/"), "another answer, that is not the first")
	h.run("status") // is a trace of its own

	var ours []received
	byID := map[string]received{}
	named := func(service, name string) (found []received) {
		for _, s := range ours {
			if s.service == service && (s.GetName() == name || strings.HasSuffix(s.GetName(), "/"+name)) {
				found = append(found, s)
			}
		}
		return found
	}
	require.Eventually(t, func() bool {
		ours = nil
		for _, s := range c.all() {
			if hex.EncodeToString(s.GetTraceId()) == traceID {
				ours = append(ours, s)
				byID[hex.EncodeToString(s.GetSpanId())] = s
			}
		}
		return len(named("codeserver", "first answer")) > 0 && len(named("codeserver", "Deploy")) > 0 && len(named("pexpress", "pexpress deploy")) > 0
	}, 30*time.Second, 20*time.Millisecond)

	one := func(service, name string) received {
		t.Helper()
		found := named(service, name)
		require.Len(t, found, 1, "%s %s", service, name)
		return found[0]
	}
	within := func(child, parent received) {
		t.Helper()
		require.Equal(t, parent.GetSpanId(), child.GetParentSpanId(), "%s is within %s", child.GetName(), parent.GetName())
		require.LessOrEqual(t, parent.GetStartTimeUnixNano(), child.GetStartTimeUnixNano()+uint64(time.Millisecond))
	}
	root := one("pexpress", "pexpress deploy")
	require.Equal(t, parent, hex.EncodeToString(root.GetParentSpanId()))
	for _, name := range []string{"plan", "build deps", "build source", "Deploy"} {
		within(one("pexpress", name), root)
	}
	within(one("pexpress", "upload"), one("pexpress", "build source"))
	require.NotEqual(t, tracepb.Status_STATUS_CODE_ERROR, one("pexpress", "Deploy").GetStatus().GetCode(), "it was ended before its end")
	call := one("codeserver", "Deploy")
	within(call, one("pexpress", "Deploy"))
	for _, name := range []string{"load deps", "load source", "environment", "start", "ready", "switch", "first answer"} {
		s := one("codeserver", name)
		within(s, call)
		require.Equal(t, "web", s.attribute("pexpress.location"))
		require.Len(t, s.attribute("pexpress.version"), 64)
	}
	require.GreaterOrEqual(t, one("codeserver", "first answer").GetStartTimeUnixNano(), one("codeserver", "switch").GetStartTimeUnixNano())
	// The cache's calls are of whoever made them.
	callers := map[string]int{}
	for _, s := range ours {
		if s.service == "pexcache" {
			callers[byID[hex.EncodeToString(s.GetParentSpanId())].service]++
		}
	}
	require.Positive(t, callers["pexpress"], "%v", callers)
	require.Positive(t, callers["codeserver"], "%v", callers)
	require.Len(t, callers, 2, "%v", callers)
	h.stop()
	for _, s := range c.all() {
		if s.service == "codeserver" && len(s.GetParentSpanId()) == 0 {
			require.Contains(t, s.GetName(), "pexpress.codeserver.v1.CodeServer/", "calls to the cache are within a trace, or not traced")
		}
	}
}

// TestTraceToNobody: a command whose collector is away, or does not answer, says so and is done soon.
func TestTraceToNobody(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	require.NoError(t, err)
	defer silent.Close()
	away, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, away.Close())
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		for _, address := range []string{silent.Addr().String(), away.Addr().String()} {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+address)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			// Ended after its time by ctx if it waits for the collector.
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			cmd := exec.CommandContext(ctx, filepath.Join(bin, "pexpress"), "status")
			cmd.Dir, cmd.Env = h.project, h.env()
			out, err := cmd.CombinedOutput()
			cancel()
			require.NoError(t, err, "%s to %s: %s", protocol, address, out)
			require.Contains(t, string(out), "serves nothing yet")
			require.Contains(t, string(out), "warning: the trace was not sent: ")
		}
	}
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "pigeon")
	require.Contains(t, h.run("status").stderr, "use grpc or http/protobuf")
	require.Contains(t, serveFails(t, "--state", h.dir+"/s", "--listen", "127.0.0.1:0", "--cache", h.dir+"/c"), "use grpc or http/protobuf")
	t.Setenv("OTEL_SDK_DISABLED", "true")
	require.Empty(t, h.run("status").stderr)
}
