package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHostileRequests(t *testing.T) {
	addr, _ := startHTTP(t, named("a"))
	_, front := serve(t, NewBackend(addr))
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"connect":      {"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405},
		"big header":   {"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", maxHeaderBytes+8192) + "\r\n\r\n", 431},
		"bad chunk":    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		"bad encoding": {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: evil\r\n\r\n", 501},
		"bad upgrade":  {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: \xff\r\n\r\n", 502},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", front)
			require.NoError(t, err)
			defer conn.Close()
			go func() { _, _ = io.WriteString(conn, c.request) }()
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, c.status, res.StatusCode)
		})
	}
}
