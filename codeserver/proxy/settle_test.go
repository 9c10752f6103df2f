package proxy

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSettle shuts down while a connection has been accepted that says nothing yet, and one that never will: what the first
// one then asks is answered.
func TestSettle(t *testing.T) {
	version, _ := startHTTP(t, named("one"))
	s, addr := serve(t, NewBackend(version))
	dial := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	asks := dial()
	eventually(t, "it is accepted", func() bool { return s.silent.n.value() == 1 })
	done := make(chan error, 1)
	go func() {
		s.Settle(context.Background())
		done <- s.Shutdown(context.Background())
	}()
	_, err := asks.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(asks), nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, <-done)
	require.Zero(t, s.silent.n.value())
}

// TestSettleSilent does not wait for ever.
func TestSettleSilent(t *testing.T) {
	s, addr := serve(t, nil)
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	eventually(t, "it is accepted", func() bool { return s.silent.n.value() == 1 })
	s.Settle(context.Background())
	require.NoError(t, c.Close())
	eventually(t, "it is counted out", func() bool { return s.silent.n.value() == 0 })
}
