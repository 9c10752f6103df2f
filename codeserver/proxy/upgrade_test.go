package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUpgrade(t *testing.T) {
	ctx := testContext(t)
	echo := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, "no upgrade", http.StatusUpgradeRequired)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(c, rw)
	}
	addr, _ := startHTTP(t, echo)
	b := NewBackend(addr)
	s, front := serve(t, b)
	open := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", front)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		require.NoError(t, err)
		br := bufio.NewReader(c)
		res, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
		return c, br
	}
	c, br := open()
	ask := func() {
		_, err := io.WriteString(c, "hello")
		require.NoError(t, err)
		buf := make([]byte, 5)
		_, err = io.ReadFull(br, buf)
		require.NoError(t, err)
		require.Equal(t, "hello", string(buf))
	}
	ask()
	s.Point(nil)
	ask()
	require.Equal(t, 1, b.InFlight())
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	_, err := br.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, b.Drain(ctx))

	s.Point(b)
	_, br = open()
	require.NoError(t, s.Close()) // ends upgraded connections as well
	_, err = br.ReadByte()
	require.Error(t, err)
	require.NoError(t, b.Drain(ctx))
}

func TestH2CUpgradeIsDeclined(t *testing.T) {
	addr, _ := startHTTP(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			panic(http.ErrAbortHandler)
		}
	})
	_, front := serve(t, NewBackend(addr))
	req, err := http.NewRequestWithContext(testContext(t), http.MethodGet, "http://"+front, nil)
	require.NoError(t, err)
	req.Header.Set("Connection", "Upgrade, HTTP2-Settings")
	req.Header.Set("Upgrade", "h2c")
	req.Header.Set("Http2-Settings", "AAMAAABkAAQAAP__")
	res, err := newClient(t, false).Do(req)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	_ = body(t, res)
}

func TestUpgradeWithBodyIsDeclined(t *testing.T) {
	addr, _ := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		named("a"+r.Header.Get("Upgrade"))(w, r)
	})
	_, front := serve(t, NewBackend(addr))
	c, err := net.Dial("tcp", front)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi")
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	require.Equal(t, "a 2", body(t, res))
}
