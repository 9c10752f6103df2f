package codeserver

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/codeserver/loader"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// metrics are for Prometheus. What is counted by location is read from the locations when it is asked for, so that the series
// of one that was removed are gone with it. No label has a version, a digest, or anything else without number.
type metrics struct {
	registry *prometheus.Registry
	stages   *prometheus.HistogramVec
	calls    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	mu     sync.Mutex
	held   loader.Stats
	looked time.Time // when held was so
}

func newMetrics(s *Server) *metrics {
	buckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "codeserver_stage_seconds", Help: "How long the stages of deploys, rollbacks and restarts took.", Buckets: buckets,
		}, []string{"stage"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "codeserver_calls_total", Help: "Calls of the control API that ended, by method and gRPC code.",
		}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "codeserver_call_seconds", Help: "How long calls of the control API took, streams included.", Buckets: buckets,
		}, []string{"method"}),
	}
	m.registry.MustRegister(m.stages, m.calls, m.seconds, &collector{s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Metrics serves the metrics of all locations. Who may see them is the caller's to check.
func (s *Server) Metrics() http.Handler {
	return promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{Registry: s.metrics.registry, MaxRequestsInFlight: 4})
}

// CallOptions has a gRPC server count the calls of the control API, those that are refused included: they come before all
// other interceptors. It also has this server expect a deploy of whoever makes a connection.
func (s *Server) CallOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StatsHandler(s.expect),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			begin := time.Now()
			resp, err := next(ctx, req)
			s.metrics.call(info.FullMethod, begin, err)
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			begin := time.Now()
			err := next(srv, stream)
			s.metrics.call(info.FullMethod, begin, err)
			return err
		}),
	}
}

func (m *metrics) call(method string, begin time.Time, err error) {
	method = method[strings.LastIndexByte(method, '/')+1:]
	m.calls.WithLabelValues(method, status.Code(err).String()).Inc()
	m.seconds.WithLabelValues(method).Observe(time.Since(begin).Seconds())
}

// stage counts a stage. Further trees are called what deployers like: they are one.
func (m *metrics) stage(st *codeserverpb.Stage) {
	name := st.GetName()
	if strings.HasPrefix(name, "load ") && name != "load deps" && name != "load source" {
		name = "load output"
	}
	m.stages.WithLabelValues(name).Observe(st.GetTook().AsDuration().Seconds())
}

// lookAgain is how long what is known of the store holds: all of its files are looked at.
const lookAgain = time.Minute

// store returns what the store holds.
func (m *metrics) store(s *Server) loader.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.looked) > lookAgain {
		if held, err := s.loader.Held(s.ctx); err == nil {
			m.held, m.looked = held, time.Now()
		}
	}
	return m.held
}

// The outcomes of deploys, rollbacks and restarts.
const (
	outcomeDeployed  = "deployed"
	outcomeUnchanged = "unchanged"
	outcomeFailed    = "failed"
)

// deploy counts one in that has ended. Server.mu is held.
func (d *done) deploy(t *transition, why error) {
	if d.deploys == nil {
		d.deploys = map[string]int64{}
	}
	switch {
	case why != nil:
		d.deploys[outcomeFailed]++
	case t.run == nil:
		d.deploys[outcomeUnchanged]++
	default:
		d.deploys[outcomeDeployed]++
	}
}
