// Package client is the Go client of a codeserver's control API (codeserver/proto/v1).
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/pexpress/pexpress/cache/local"
	"github.com/pexpress/pexpress/cache/traces"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// maxMessage bounds one message: a list of locations with their versions.
const maxMessage = 16 << 20

// Client is a connection to a codeserver. It has the methods of the API.
type Client struct {
	codeserverpb.CodeServerClient
	conn *grpc.ClientConn
}

// Dial returns a client of the codeserver at addr, unix:///socket, host:port, or grpcs://host:port for TLS, with the
// credentials of the environment (see [FromEnvironment]). It checks that somebody listens there, so that a wrong address
// is told from a slow answer.
func Dial(ctx context.Context, addr string) (*Client, error) {
	return DialWith(ctx, addr, FromEnvironment())
}

// DialWith is Dial with credentials that are given.
func DialWith(ctx context.Context, addr string, c Credentials) (*Client, error) {
	return dial(ctx, addr, c, patience)
}

// patience is how long a server that took a connection may say nothing before the connection is given up: it may be stopped.
const patience = 10 * time.Second

func dial(ctx context.Context, addr string, c Credentials, patience time.Duration) (*Client, error) {
	network, target, err := parse(addr)
	if err != nil {
		return nil, err
	}
	opts, err := c.options(addr, target)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: patience}
	probe, err := d.DialContext(ctx, network, target)
	if err != nil {
		return nil, unreached(err)
	}
	if err := probe.Close(); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+target, append(slices.Concat(opts, naming{addr}.dialOptions(), traces.DialOptions(ctx)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: patience}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, target)
		}))...)
	if err != nil {
		return nil, err
	}
	conn.Connect() // whoever dials has something to do before the first call
	return &Client{codeserverpb.NewCodeServerClient(conn), conn}, nil
}

// unreached says of a connection that was not made what may be wrong, where the system's own words do not.
func unreached(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nobody answers: %w; is 'codeserver serve' running there?", err)
	}
	return fmt.Errorf("it cannot be reached: %w", err)
}

func parse(addr string) (network, target string, err error) {
	if path, ok := local.Socket(addr); ok {
		return "unix", path, nil
	}
	target = strings.TrimPrefix(addr, secure)
	if _, _, err := net.SplitHostPort(target); err != nil {
		return "", "", fmt.Errorf("%q is neither unix:///socket nor host:port nor grpcs://host:port: %w", addr, err)
	}
	return "tcp", target, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }
