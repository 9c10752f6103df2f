// Package observe lets people see what a cache server does: Prometheus metrics, OpenTelemetry traces, structured logs and
// a status page, all fed by the same few counters.
//
// Nothing here holds a token or the content of a blob, and what clients make up (mnemonics, instance names) can neither
// grow a set of labels without bound nor reach a page unescaped.
package observe

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Options of an Observer.
type Options struct {
	Version string
	// Tiers says what the store holds and has done; nil if there is nothing to say.
	Tiers func() []Tier
	// Prices say what requests to S3 cost; nil for [ListPrices].
	Prices Prices
	// Family returns the few names that instances are counted under; nil counts each by its own.
	Family func(instance string) string
	Log    *slog.Logger     // nil is silence
	Now    func() time.Time // nil is time.Now
}

// Observer counts what a server does.
type Observer struct {
	o        Options
	registry *prometheus.Registry
	node     string
	started  time.Time
	run      string        // the first part of all request ids
	calls    atomic.Uint64 // numbers them

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	s3       *prometheus.HistogramVec
	active   atomic.Int64 // requests under way
	moving   atomic.Int64 // bytes of blobs under way
	total    totals
	tallies  tallies
	slow     slow
	history  history
}

// totals are sums over all instances since the start.
type totals struct{ requests, errors, hits, misses, read, written atomic.Int64 }

// New returns an Observer. [Observer.Run] keeps its history.
func New(o Options) *Observer {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Tiers == nil {
		o.Tiers = func() []Tier { return nil }
	}
	if o.Prices == nil {
		o.Prices = ListPrices
	}
	if o.Family == nil {
		o.Family = func(name string) string { return name }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	v := &Observer{o: o, registry: prometheus.NewRegistry(), started: o.Now(), run: rand.Text()[:10]}
	v.node, _ = os.Hostname() // a node without a name is shown without
	buckets := []float64{.0002, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	v.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pexcache_requests_total", Help: "Requests that ended, by method, instance and gRPC or HTTP code.",
	}, []string{"method", "instance", "code"})
	v.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "pexcache_request_seconds", Help: "How long requests took, streams included.", Buckets: buckets,
	}, []string{"method", "instance"})
	v.s3 = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "pexcache_s3_attempt_seconds", Help: "How long each attempt of a request to S3 took until its answer began.", Buckets: buckets,
	}, []string{"verb", "code"})
	v.tallies.init()
	v.slow.now, v.history.now = o.Now, o.Now
	v.registry.MustRegister(
		v.requests, v.seconds, v.s3, &collector{v},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return v
}

// Registry is where the metrics are.
func (v *Observer) Registry() *prometheus.Registry { return v.registry }

// Run samples the history until ctx ends.
func (v *Observer) Run(ctx context.Context) {
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		v.history.sample(v.point())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
