package access

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/server"
)

// Limits are those of the control API: package server's, which end calls and connections that are slow on purpose, with
// numbers for a few deploys and watchers at a time in place of a team's builds.
func Limits() server.Limits {
	l := server.DefaultLimits
	l.Calls, l.Streams, l.Message = 1000, 100, 4<<20
	return l
}

// maxConnections bounds the connections to the control API, if the configuration does not say.
const maxConnections = 1000

// Listener bounds the connections of the control API's listener: others wait. Those of locations are not counted.
func (c *Config) Listener(inner net.Listener) net.Listener {
	return netutil.LimitListener(inner, cmp.Or(c.Connections, maxConnections))
}

// ServerOptions returns the options of a gRPC server that knows its callers and lets them do what they may. What fails
// later, as a file that is replaced by a bad one, is told to warn, and what was read before holds.
func (c *Config) ServerOptions(warn func(error)) ([]grpc.ServerOption, error) {
	a, err := c.Authenticator(warn)
	if err != nil {
		return nil, err
	}
	policy, err := c.Policy()
	if err != nil {
		return nil, err
	}
	opts := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(a.Unary, policy.Unary), grpc.ChainStreamInterceptor(a.Stream, policy.Stream),
	}
	if c.Cert != "" {
		t, err := c.TLS(warn, "h2")
		if err != nil {
			return nil, err
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(t)))
	}
	return opts, nil
}

// TLS returns how a server speaks TLS with the protocols that it knows, nil if the configuration has no certificate. The
// files are read at each handshake.
func (c *Config) TLS(warn func(error), protocols ...string) (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	certs, err := auth.OpenCertificates(c.Cert, c.Key, c.ClientCA)
	if err != nil {
		return nil, err
	}
	t := certs.TLS(protocols...)
	present := t.GetConfigForClient
	t.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if _, err := certs.Reload(); err != nil {
			warn(err)
		}
		return present(hello)
	}
	return t, nil
}

// fresh verifies tokens by what their file says now: one that is taken out of it is refused from then on.
type fresh struct {
	tokens *auth.Tokens
	warn   func(error)
}

// Verify implements auth.Verifier.
func (f *fresh) Verify(ctx context.Context, token string) (string, error) {
	if _, err := f.tokens.Reload(); err != nil {
		f.warn(err)
	}
	return f.tokens.Verify(ctx, token)
}
