package main

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// TestSlowLorisSoak opens connections that never say what they want, or do it a byte at a time. All are dropped; none of them
// keeps a place from others for long.
func TestSlowLorisSoak(t *testing.T) {
	if os.Getenv("PEXPRESS_SOAK") == "" {
		t.Skip("it waits for the server's time limits: set PEXPRESS_SOAK=1")
	}
	dir := t.TempDir()
	a := newAuthority(t, dir, "authority")
	cert, key := a.sign(dir, "server", 1)
	plain := start(t, "--disk", dir+"/1")
	secure := start(t, "--disk", dir+"/2", "--tls-cert", cert, "--tls-key", key)
	halfway := func(address string) (net.Conn, error) { return net.Dial("tcp", address) }
	greeted := func(address string) (net.Conn, error) {
		return tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	}
	var g errgroup.Group
	for _, c := range []struct {
		name    string
		address string
		dial    func(string) (net.Conn, error)
		says    string
	}{
		{"gRPC, silent", plain.grpc, halfway, ""},
		{"gRPC, half a preface", plain.grpc, halfway, "PRI * HT"},
		{"HTTP, silent", plain.http, halfway, ""},
		{"HTTP, half a header", plain.http, halfway, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "},
		{"gRPC before TLS", secure.grpc, halfway, ""},
		{"HTTP before TLS", secure.http, halfway, ""},
		{"gRPC after TLS", secure.grpc, greeted, ""},
	} {
		g.Go(func() error {
			conn, err := c.dial(c.address)
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(c.says)); err != nil {
				return err
			}
			go func() {
				for c.says != "" { // until the connection is gone
					time.Sleep(time.Second)
					if _, err := conn.Write([]byte("x")); err != nil {
						return
					}
				}
			}()
			if err := conn.SetReadDeadline(time.Now().Add(3 * time.Minute)); err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, conn)
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // a net.Conn's own
				t.Errorf("%s: still connected after three minutes", c.name)
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
}
