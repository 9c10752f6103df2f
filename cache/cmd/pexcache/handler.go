package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/instance"
	"github.com/pexpress/pexpress/cache/observe"
	"github.com/pexpress/pexpress/cache/server"
	"github.com/pexpress/pexpress/cache/traces"
)

// web is what is served over HTTP: the cache, the status page, metrics, and a probe.
type web struct {
	instances *instance.Instances
	observers auth.Patterns
	closing   atomic.Bool
}

// handler puts the parts together. Everything but the probe is behind authentication; what looks at the server is not
// counted among what it does.
func (w *web) handler(a *auth.Authenticator, v *observe.Observer, t *traces.Traces, opts []server.Option) http.Handler {
	status := a.HTTP(v.StatusPage(w.guard))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", w.healthz)
	mux.Handle("GET /{$}", status)
	mux.Handle("GET /status.json", status)
	mux.Handle("GET /metrics", a.HTTP(v.Metrics(w.guard)))
	mux.Handle("/", observe.Traced(t, v.HTTP(a.HTTP(server.HTTP(v.Instances(w.instances), opts...)))))
	return mux
}

// healthz answers probes, which show nothing and learn nothing but whether to send requests here.
func (w *web) healthz(out http.ResponseWriter, _ *http.Request) {
	if w.closing.Load() {
		http.Error(out, "closing", http.StatusServiceUnavailable)
		return
	}
	_, _ = out.Write([]byte("ok\n")) // a probe that is gone asks again
}

// guard lets observers see everything, and others what they may read.
func (w *web) guard(out http.ResponseWriter, r *http.Request) (show func(string) bool, all, ok bool) {
	ctx := r.Context()
	who := cache.PrincipalOf(ctx)
	if w.observers.Match(who) {
		return func(string) bool { return true }, true, true
	}
	any, all := w.instances.Reads(ctx)
	if !any {
		if who == auth.Anonymous {
			auth.Challenge(out, "the status page needs the right to read an instance")
		} else {
			http.Error(out, who+" may read no instance: who runs the cache can grant it", http.StatusForbidden)
		}
		return nil, false, false
	}
	return func(family string) bool { return w.instances.MayReadFamily(ctx, family) }, all, true
}

// newHTTPServer returns the server of the HTTP address. Its limits end connections that are slow on purpose; the cache's own
// handler watches over bodies.
func newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
}

// profiler serves Go's profiler until ctx ends.
func profiler(ctx context.Context, address string) error {
	l, err := listen(address, 16)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := newHTTPServer(mux)
	context.AfterFunc(ctx, func() { s.Close() })
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
