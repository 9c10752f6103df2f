package codeserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// slow are the pauses between probes of a version that answers that it cannot serve, n of them.
func slow(n int) []time.Duration {
	all := []time.Duration{5, 10, 20, 40, 80, 160}
	for len(all) < n {
		all = append(all, 250)
	}
	for i := range all {
		all[i] *= time.Millisecond
	}
	return all[:n]
}

// pausesOf asks until a version can serve, on a clock that goes by the pauses, which it returns.
func pausesOf(t *testing.T, ask probe, each func(n int)) (pauses []time.Duration) {
	t.Helper()
	now := make(chan time.Time)
	close(now)
	require.NoError(t, untilReady(t.Context(), ask, nil, func(d time.Duration) <-chan time.Time {
		pauses = append(pauses, d)
		each(len(pauses))
		return now
	}))
	return pauses
}

// TestPauses asks a version that warms up: often until its port answers, and then ever less often.
func TestPauses(t *testing.T) {
	requests := 0
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests++; requests <= 20 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer web.Close()
	http := probeHTTP(web.Listener.Addr().String(), "/")
	asked := 0
	ask := func(ctx context.Context) error {
		if asked++; asked <= 80 {
			return errors.New("connection refused")
		}
		return http(ctx)
	}
	pauses := pausesOf(t, ask, func(int) {})
	require.Len(t, pauses, 80+20)
	fast, waited := pauses[:80], time.Duration(0)
	for _, pause := range fast {
		require.GreaterOrEqual(t, pause, time.Millisecond)
		require.LessOrEqual(t, pause, min(time.Millisecond+waited/30, 5*time.Millisecond))
		waited += pause
	}
	require.Equal(t, 5*time.Millisecond, fast[79])
	require.Equal(t, slow(20), pauses[80:])
	require.Equal(t, 21, requests)
}

// TestPausesGRPC is TestPauses for the health checking protocol: it does not serve, or does not know the service.
func TestPausesGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g, state := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(g, state)
	go func() { _ = g.Serve(l) }()
	defer g.Stop()
	ask, done, err := probeGRPC(l.Addr().String(), "service")
	require.NoError(t, err)
	defer done()
	require.Equal(t, slow(9), pausesOf(t, ask, func(n int) {
		switch n {
		case 4:
			state.SetServingStatus("service", healthpb.HealthCheckResponse_NOT_SERVING)
		case 9:
			state.SetServingStatus("service", healthpb.HealthCheckResponse_SERVING)
		}
	}))
}
