// Package client is the Go client of a codeserver's control API (codeserver/proto/v1).
package client

import (
	"context"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// maxMessage bounds one message: a list of locations with their versions.
const maxMessage = 16 << 20

// Client is a connection to a codeserver. It has the methods of the API.
type Client struct {
	codeserverpb.CodeServerClient
	conn *grpc.ClientConn
}

// Dial returns a client of the codeserver at addr, unix:///socket or host:port. It checks that somebody listens there,
// so that a wrong address is told from a slow answer.
func Dial(ctx context.Context, addr string) (*Client, error) {
	network, target := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		network, target = "unix", path
	} else if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("%q is neither unix:///socket nor host:port: %w", addr, err)
	}
	var d net.Dialer
	probe, err := d.DialContext(ctx, network, target)
	if err != nil {
		return nil, fmt.Errorf("nobody answers: %w; is 'codeserver serve' running there?", err)
	}
	if err := probe.Close(); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, target)
		}))
	if err != nil {
		return nil, err
	}
	return &Client{codeserverpb.NewCodeServerClient(conn), conn}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }
