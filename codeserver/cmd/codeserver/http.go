package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/net/netutil"

	"github.com/pexpress/pexpress/cache/local"
	"github.com/pexpress/pexpress/codeserver"
	"github.com/pexpress/pexpress/codeserver/page"
	"github.com/pexpress/pexpress/codeserver/sockets"
)

// web is what is served over HTTP beside the locations: the page. Nothing listens if no address was given.
type web struct {
	listener net.Listener
	log      *slog.Logger
}

// maxHTTP bounds the connections; more wait.
const maxHTTP = 512

// openWeb opens the address, before anything is started: it may be taken, or one that is not for everyone to reach.
func openWeb(address string, g *guard, set *sockets.Set, log *slog.Logger) (*web, error) {
	h := &web{log: log}
	if address == "" {
		return h, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return nil, fmt.Errorf("--http %s: %w; use host:port", address, err)
	}
	if !local.IsHost(host) && (!g.closed || g.config.Cert == "") {
		return nil, fmt.Errorf("--http %s can be reached from other machines: say with --config who may do what, and give it "+
			"tls-cert and tls-key, or use a loopback address", address)
	}
	l, systemds, err := passed(set, pageSocket, address)
	if l == nil && err == nil {
		l, err = net.Listen("tcp", address)
	}
	if err == nil && !systemds {
		err = set.Keep(pageSocket, l)
	}
	if err != nil {
		return nil, fmt.Errorf("--http: %w", err)
	}
	h.listener = netutil.LimitListener(g.outside(l), maxHTTP)
	return h, nil
}

// close ends what openWeb has opened.
func (h *web) close() error {
	if h.listener == nil {
		return nil
	}
	if err := h.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// serve serves until ctx ends.
func (h *web) serve(ctx context.Context, s *codeserver.Server, g *guard) error {
	if h.listener == nil {
		return nil
	}
	warn := onceEach(h.log)
	opts := page.Options{Control: s.API(), Changes: s.Changes, Trees: s.Trees(), Log: h.log}
	opts.Name, _ = os.Hostname() // only a title
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	if g.closed {
		var err error
		if opts.Authenticator, err = g.config.Authenticator(warn); err != nil {
			return err
		}
		if opts.Policy, err = g.config.Policy(); err != nil {
			return err
		}
		if server.TLSConfig, err = g.config.TLS(warn, "h2", "http/1.1"); err != nil {
			return err
		}
	}
	opts.TLS = server.TLSConfig != nil
	p := page.New(opts)
	mux := http.NewServeMux()
	mux.Handle("/", p.Handler())
	mux.Handle("GET /metrics", page.Whole(guardMetrics(s.Metrics(), opts)))
	server.Handler = mux
	go p.Run(ctx)
	go h.run(ctx, server)
	return nil
}

// run answers requests. That the page does not answer any more does not end what locations serve.
func (h *web) run(ctx context.Context, server *http.Server) {
	context.AfterFunc(ctx, func() { server.Close() })
	serve, scheme := server.Serve, "http"
	if server.TLSConfig != nil {
		serve, scheme = func(l net.Listener) error { return server.ServeTLS(l, "", "") }, "https"
	}
	h.log.Info("serving the page", "address", scheme+"://"+h.listener.Addr().String()+"/")
	if err := serve(h.listener); !errors.Is(err, http.ErrServerClosed) {
		h.log.Error("the page is not served any more", "error", err)
	}
}
