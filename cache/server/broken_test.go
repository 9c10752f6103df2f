package server_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/server"
)

// TestBrokenBodies: a body that ends early is a bad request and not a server that is away, and nothing of it is stored.
func TestBrokenBodies(t *testing.T) {
	for what, head := range map[string]string{
		"by length": "Content-Length: 100\r\n\r\nhello", "in chunks": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe", "no chunk": "Transfer-Encoding: chunked\r\n\r\nnot hex\r\n",
	} {
		for _, kind := range []string{"cas", "ac"} {
			w := serveHTTP(t)
			u, err := url.Parse(w.URL)
			require.NoError(t, err)
			conn, err := net.Dial("tcp", u.Host)
			require.NoError(t, err)
			defer conn.Close()
			d := of("hello")
			_, err = fmt.Fprintf(conn, "PUT /%s/%s HTTP/1.1\r\nHost: x\r\n%s", kind, d.Hash(), head)
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, http.StatusBadRequest, resp.StatusCode, "%s, %s", what, kind)
			missing, err := w.store.FindMissing(t.Context(), []digest.Digest{d})
			require.NoError(t, err)
			require.Len(t, missing, 1)
		}
	}
}

// TestTrickledBody sends a byte now and then: that is no reason to wait on.
func TestTrickledBody(t *testing.T) {
	w := serveHTTP(t, server.WithIdle(200*time.Millisecond))
	u, err := url.Parse(w.URL)
	require.NoError(t, err)
	conn, err := net.Dial("tcp", u.Host)
	require.NoError(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "PUT /cas/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", of("x").Hash())
	require.NoError(t, err)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
}

// TestWriteWithoutMessage says what was expected.
func TestWriteWithoutMessage(t *testing.T) {
	s := serve(t)
	stream, err := s.bytes.Write(t.Context())
	require.NoError(t, err)
	_, err = stream.CloseAndRecv()
	requireCode(t, codes.InvalidArgument, err, "resource_name")
}
