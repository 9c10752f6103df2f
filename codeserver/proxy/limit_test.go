package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestLimited has two connections take the two places that there are: a third one waits for one of them.
func TestLimited(t *testing.T) {
	l := limit(listen(t), 2)
	accepted := make(chan net.Conn, 3)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	defer second.Close()
	require.Implements(t, (*interface{ CloseWrite() error })(nil), first)
	select {
	case <-accepted:
		require.Fail(t, "a third is accepted")
	case <-time.After(100 * time.Millisecond):
	}
	require.NoError(t, first.Close())
	require.Error(t, first.Close(), "and gives up one place")
	third := <-accepted
	defer third.Close()
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-ended, net.ErrClosed, "also while it waits for a place")
}

// TestManyRequests has one client bring more requests at once than there are connections to the version: all are answered.
func TestManyRequests(t *testing.T) {
	var now unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &now))
	few := now
	few.Cur = 160
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &now)) }()
	require.Equal(t, 20, connections())
	addr, _ := startHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(w, "ok")
	})
	_, front := serve(t, NewBackend(addr))
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	ask := func() string {
		resp, err := (&http.Client{Transport: h2}).Get("http://" + front)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", string(b), " ", err)
	}
	require.Equal(t, "200 ok <nil>", ask(), "and there is the one connection")
	answers := make(chan string, 300)
	for range cap(answers) {
		go func() { answers <- ask() }()
	}
	for range cap(answers) {
		require.Equal(t, "200 ok <nil>", <-answers)
	}
}
