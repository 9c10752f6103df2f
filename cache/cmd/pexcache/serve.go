package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/pexpress/pexpress/cache/asset"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/instance"
	"github.com/pexpress/pexpress/cache/observe"
	"github.com/pexpress/pexpress/cache/server"
	"github.com/pexpress/pexpress/cache/traces"
)

const serveHelp = `Serve until ended by SIGTERM or SIGINT.

Without authentication the addresses must be loopback or unix sockets, and everyone there may read and write the default
instance. Instances, who may use them, and OpenID Connect issuers are in the configuration file; docs/pexcache.md lists
all keys. Credentials for S3 come from where the AWS tools look: environment, files, web identity, instance role.`

func serveCommand() *cobra.Command {
	c, path := defaults(), ""
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve a cache", Long: serveHelp, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.load(cmd, path); err != nil {
				return err
			}
			if err := c.check(); err != nil {
				return err
			}
			return serve(cmd.Context(), &c, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "TOML file with the same keys as the flags, and tables; flags count before it")
	c.flags(cmd.Flags())
	return cmd
}

// node is a running server.
type node struct {
	c       *config
	log     *slog.Logger
	store   *store
	traces  *traces.Traces
	grpc    *grpc.Server
	health  *health.Server
	service *server.Service
	http    *http.Server
	web     *web
	failed  chan error
}

func serve(ctx context.Context, c *config, stderr io.Writer) (err error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		// Little memory lives long here, and much is made for each call: collecting it less often saves a tenth of the time.
		debug.SetGCPercent(400)
		debug.SetMemoryLimit(2 * int64(c.Memory)) // near which it is collected as often as needed
	}
	n := newNode(c, stderr, level)
	defer func() { err = errors.Join(err, n.close()) }()
	background, stop := context.WithCancel(context.Background())
	defer stop()
	if err := n.build(ctx, background); err != nil {
		return err
	}
	if err := n.listen(); err != nil {
		return err
	}
	n.report("READY=1\nSTATUS=serving " + c.Listen)
	select {
	case <-ctx.Done():
	case err = <-n.failed:
	}
	n.drain()
	return err
}

func newNode(c *config, stderr io.Writer, level slog.Level) *node {
	n := &node{c: c, log: observe.NewLog(stderr, level), health: health.NewServer(), failed: make(chan error, 8)}
	n.store = &store{log: n.log}
	return n
}

// build makes everything that serves, and opens the store last: until then nothing is there to close.
func (n *node) build(ctx, background context.Context) error {
	authenticator, watched, err := n.authentication()
	if err != nil {
		return configError{err}
	}
	instances, err := instance.New(n.store, n.c.instances())
	if err != nil {
		return configError{err}
	}
	if n.traces, err = traces.Open(ctx, "pexcache", version); err != nil {
		return configError{err}
	}
	if n.traces != nil {
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { n.log.Warn("traces", "error", err.Error()) }))
	}
	v := observe.New(observe.Options{
		Version: version, Tiers: n.store.figures, Prices: n.c.prices(), Log: n.log,
		Family: func(name string) string { f, _ := instances.Family(name); return f },
	})
	var creds []grpc.ServerOption
	var webTLS *tls.Config
	if n.c.TLSCert != "" {
		certs, err := auth.OpenCertificates(n.c.TLSCert, n.c.TLSKey, n.c.TLSClientCA)
		if err != nil {
			return configError{err}
		}
		watched = append(watched, certs.Reload)
		creds = append(creds, grpc.Creds(credentials.NewTLS(certs.TLS("h2"))))
		webTLS = certs.TLS("h2", "http/1.1")
	}
	origins, err := asset.ParseAllowed(n.c.Origins)
	if err != nil {
		return configError{err}
	}
	n.web = &web{instances: instances, observers: n.c.Observers}
	spool := "" // the system's directory for temporary files
	if n.c.Disk != "" {
		spool = n.c.spool()
	}
	opts := []server.Option{server.WithMemory(int64(n.c.Memory)), server.WithSpool(spool)}
	n.http = newHTTPServer(n.web.handler(authenticator, v, n.traces, opts))
	n.http.TLSConfig = webTLS
	n.http.ErrorLog = slog.NewLogLogger(n.log.Handler(), slog.LevelDebug)
	n.grpc = grpc.NewServer(n.options(v, authenticator, creds)...)
	n.service = server.Register(n.grpc, v.Instances(instances), opts...)
	asset.Register(n.grpc, v.Instances(instances), asset.Options{Allow: origins, Spool: spool})
	healthpb.RegisterHealthServer(n.grpc, n.health)
	reflection.Register(n.grpc)
	measured := func(base http.RoundTripper) http.RoundTripper { return v.Transport(base, n.traces) }
	if err := n.store.open(ctx, n.c, measured); err != nil {
		return err
	}
	go v.Run(background)
	go n.watch(background, watched)
	if n.c.Pprof != "" {
		go func() { n.fail(profiler(background, n.c.Pprof)) }()
	}
	return nil
}

// options are those of the gRPC server. Counting comes first, so that what is refused is counted, too.
func (n *node) options(v *observe.Observer, a *auth.Authenticator, creds []grpc.ServerOption) []grpc.ServerOption {
	opts := append(creds, grpc.ChainUnaryInterceptor(v.Unary, a.Unary), grpc.ChainStreamInterceptor(v.Stream, a.Stream))
	opts = append(opts, n.traces.ServerOptions()...)
	return append(opts, server.Options()...)
}

// authentication returns who says who callers are, and the files that it has to read again when they change.
func (n *node) authentication() (*auth.Authenticator, []reloader, error) {
	var o auth.Options
	var watched []reloader
	if n.c.Tokens != "" {
		tokens, err := auth.OpenTokens(n.c.Tokens)
		if err != nil {
			return nil, nil, err
		}
		o.Verifiers = append(o.Verifiers, tokens)
		watched = append(watched, tokens.Reload)
	}
	if len(n.c.OIDC) > 0 {
		issuers, err := auth.NewOIDC(n.c.OIDC, auth.OIDCOptions{})
		if err != nil {
			return nil, nil, err
		}
		o.Verifiers = append(o.Verifiers, issuers)
	}
	// Who shows nothing passes if some instance, or the status page, is for such callers.
	o.Anonymous = auth.Patterns(n.c.Observers).Match(auth.Anonymous)
	for _, i := range n.c.instances() {
		for _, p := range []auth.Patterns{i.Read, i.WriteCAS, i.WriteActions} {
			o.Anonymous = o.Anonymous || p.Match(auth.Anonymous)
		}
	}
	return auth.New(o), watched, nil
}

// listen opens the addresses and begins to serve.
func (n *node) listen() error {
	l, err := listen(n.c.Listen, n.c.Connections)
	if err != nil {
		return err
	}
	go func() { n.fail(n.grpc.Serve(l)) }()
	n.log.Info("serving gRPC", "address", addressOf(l), "tls", n.c.TLSCert != "")
	if n.c.HTTPListen != "none" {
		l, err := listen(n.c.HTTPListen, n.c.Connections)
		if err != nil {
			return err
		}
		serve := n.http.Serve
		if n.c.TLSCert != "" {
			serve = func(l net.Listener) error { return n.http.ServeTLS(l, "", "") }
		}
		go func() {
			if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
				n.fail(err)
			}
		}()
		n.log.Info("serving HTTP", "address", addressOf(l), "tls", n.c.TLSCert != "")
	}
	n.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	return nil
}

func addressOf(l net.Listener) string {
	if a := l.Addr(); a.Network() != "unix" {
		return a.String()
	}
	return "a unix socket"
}

// fail ends the server for an error of one of its parts.
func (n *node) fail(err error) {
	if err != nil {
		select {
		case n.failed <- err:
		default: // it is ending for others already
		}
	}
}
