package observe

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/traces"
)

func TestTracesAreOffUnlessAsked(t *testing.T) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		t.Setenv(name, "")
	}
	sent, err := traces.Open(t.Context(), "pexcache", "1")
	require.NoError(t, err)
	require.Nil(t, sent)
	require.Empty(t, sent.ServerOptions())
	require.NoError(t, sent.Close(t.Context()))
	h := http.NotFoundHandler()
	require.NotNil(t, Traced(sent, h))

	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_SDK_DISABLED", "true")
	sent, err = traces.Open(t.Context(), "pexcache", "1")
	require.NoError(t, err)
	require.Nil(t, sent)
	t.Setenv("OTEL_SDK_DISABLED", "")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "pigeon")
	_, err = traces.Open(t.Context(), "pexcache", "1")
	require.ErrorContains(t, err, "use grpc or http/protobuf")
}

// TestTraces: a collector gets the spans of calls, of requests, and of those to S3 below them.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	names := map[string]int{}
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		var req coltrace.ExportTraceServiceRequest
		require.NoError(t, proto.Unmarshal(b, &req))
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				for _, s := range ss.GetSpans() {
					names[s.GetName()]++
				}
			}
		}
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	sent, err := traces.Open(t.Context(), "pexcache", "1")
	require.NoError(t, err)

	bucket := httptest.NewServer(http.NotFoundHandler())
	defer bucket.Close()
	client := &http.Client{Transport: newWorld(t).Transport(http.DefaultTransport, sent)}
	h := Traced(sent, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, bucket.URL, nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/cas/x", nil))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer(sent.ServerOptions()...)
	healthpb.RegisterHealthServer(g, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	g.GracefulStop()
	require.NoError(t, <-done)

	require.NoError(t, sent.Close(t.Context()))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, map[string]int{"http/GET cas": 1, "S3 GET": 1, "grpc.health.v1.Health/Check": 1}, names)
}
