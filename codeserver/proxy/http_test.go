package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRequestArrivesAsSent(t *testing.T) {
	seen := make(chan *http.Request, 1)
	addr, _ := startHTTP(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r
	})
	_, front := serve(t, NewBackend(addr))
	for _, h2 := range []bool{false, true} {
		pr, pw := io.Pipe()
		req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, "http://"+front+"//a%2Fb/..;x/?q=1;2&bad=%zz", pr)
		require.NoError(t, err)
		req.Host = "service.example:99"
		for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"} {
			req.Header.Set(h, "evil")
		}
		req.Header.Set("Te", "trailers")
		req.Trailer = http.Header{"Sum": nil, "Empty": nil}
		go func() {
			_, _ = io.WriteString(pw, "hello")
			req.Trailer.Set("Sum", "42")
			_ = pw.Close()
		}()
		res, err := newClient(t, h2).Do(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, res.StatusCode)
		_ = body(t, res)
		got := receive(t, seen)
		require.Equal(t, "HTTP/1.1", got.Proto, "a version of today speaks nothing newer")
		require.Equal(t, "//a%2Fb/..;x/?q=1;2&bad=%zz", got.RequestURI)
		require.Equal(t, "service.example:99", got.Host)
		require.Equal(t, []string{"127.0.0.1"}, got.Header["X-Forwarded-For"])
		require.Equal(t, "service.example:99", got.Header.Get("X-Forwarded-Host"))
		require.Equal(t, "http", got.Header.Get("X-Forwarded-Proto"))
		require.Empty(t, got.Header.Get("Forwarded"))
		require.Equal(t, "trailers", got.Header.Get("Te"))
		require.Empty(t, got.Header.Get("Accept-Encoding-Added"))
		require.Equal(t, "42", got.Trailer.Get("Sum"))
	}
}

func TestResponseStreamsAndEndsWithTrailers(t *testing.T) {
	next := make(chan struct{})
	addr, _ := startHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Announced")
		for range 3 {
			_, _ = io.WriteString(w, "tick\n")
			_ = http.NewResponseController(w).Flush()
			<-next
		}
		w.Header().Set("Announced", "1")
		w.Header().Set(http.TrailerPrefix+"Surprise", "2")
	})
	_, front := serve(t, NewBackend(addr))
	for _, h2 := range []bool{false, true} {
		res, err := newClient(t, h2).Get("http://" + front)
		require.NoError(t, err)
		r := bufio.NewReader(res.Body)
		for range 3 {
			line, err := r.ReadString('\n') // before the version goes on
			require.NoError(t, err)
			require.Equal(t, "tick\n", line)
			next <- struct{}{}
		}
		_, err = r.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, res.Body.Close())
		require.Equal(t, "1", res.Trailer.Get("Announced"))
		require.Equal(t, "2", res.Trailer.Get("Surprise"))
	}
}

// A body of known length is flushed as it comes, too.
func TestSizedResponseIsFlushed(t *testing.T) {
	next := make(chan struct{})
	addr, _ := startHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "2")
		for range 2 {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	_, front := serve(t, NewBackend(addr))
	res, err := newClient(t, false).Get("http://" + front)
	require.NoError(t, err)
	for range 2 {
		_, err := io.ReadFull(res.Body, make([]byte, 1))
		require.NoError(t, err)
		next <- struct{}{}
	}
	require.NoError(t, res.Body.Close())
}

// The version answers while the request body is still on its way.
func TestFullDuplex(t *testing.T) {
	addr, _ := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				return
			}
		}
	})
	_, front := serve(t, NewBackend(addr))
	for _, h2 := range []bool{false, true} {
		pr, pw := io.Pipe()
		req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, "http://"+front, pr)
		require.NoError(t, err)
		res, err := newClient(t, h2).Do(req)
		require.NoError(t, err)
		for range 5 {
			_, err := io.WriteString(pw, "ping")
			require.NoError(t, err)
			buf := make([]byte, 4)
			_, err = io.ReadFull(res.Body, buf)
			require.NoError(t, err)
			require.Equal(t, "ping", string(buf))
		}
		require.NoError(t, pw.Close())
		require.Empty(t, body(t, res))
	}
}

func TestIdleClientConnectionPinsNothing(t *testing.T) {
	ctx := testContext(t)
	addrA, srvA := startHTTP(t, named("a"))
	addrB, _ := startHTTP(t, named("b"))
	s, front := serve(t, NewBackend(addrA))
	c, err := net.Dial("tcp", front)
	require.NoError(t, err)
	defer c.Close()
	br := bufio.NewReader(c)
	ask := func(want string) {
		for _, request := range []string{
			"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
			"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		} {
			_, err := io.WriteString(c, request)
			require.NoError(t, err)
			res, err := http.ReadResponse(br, nil)
			require.NoError(t, err)
			require.Equal(t, want, body(t, res))
			require.False(t, res.Close, "the connection is worth keeping")
		}
	}
	ask("a 2")
	old := s.Point(NewBackend(addrB))
	require.NoError(t, old.Drain(ctx))
	srvA.Close() // waits for every connection to the old version to end
	ask("b 2")   // on the same client connection
}

func TestInformationalResponses(t *testing.T) {
	read := make(chan bool, 1)
	addr, _ := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/reject" {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		named("a")(w, r)
		read <- true
	})
	_, front := serve(t, NewBackend(addr))
	for _, h2 := range []bool{false, true} {
		var hints, continues int
		ctx := httptrace.WithClientTrace(testContext(t), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == http.StatusEarlyHints && h.Get("Link") != "" {
					hints++
				}
				return nil
			},
			Got100Continue: func() { continues++ },
		})
		client := newClient(t, h2)
		client.Transport.(*http.Transport).ExpectContinueTimeout = deadline
		send := func(path string) *http.Response {
			req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+front+path, strings.NewReader("hello"))
			require.NoError(t, err)
			req.Header.Set("Expect", "100-continue")
			res, err := client.Do(req)
			require.NoError(t, err)
			return res
		}
		res := send("/")
		require.Equal(t, "a 5", body(t, res))
		require.Empty(t, res.Header.Get("Link"))
		require.Equal(t, 1, hints)
		receive(t, read)

		if h2 {
			// Go's HTTP/2 server keeps the Expect header to itself and asks
			// for the body when it is read: right, but not end to end.
			require.Contains(t, []int{1, 2}, continues, "before the hint, and when the body is read, if that is at the same time")
			continue
		}
		require.Equal(t, 1, continues)
		res = send("/reject")
		require.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
		_ = body(t, res)
		require.Equal(t, 1, continues, "the version did not ask for the body")
	}
}

func TestTruncatedResponseIsAnError(t *testing.T) {
	addr, _ := startHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	_, front := serve(t, NewBackend(addr))
	for _, h2 := range []bool{false, true} {
		res, err := newClient(t, h2).Get("http://" + front)
		require.NoError(t, err)
		_, err = io.ReadAll(res.Body)
		require.Error(t, err)
		require.NoError(t, res.Body.Close())
	}
}

// Answers that come before the end of the request body, small enough for
// net/http to read on.
func TestAnswerBeforeEndOfBody(t *testing.T) {
	addr, _ := startHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Connection", "close")
		http.Error(w, "no", http.StatusForbidden)
	})
	_, front := serve(t, NewBackend(addr))
	for _, h2 := range []bool{false, true} {
		client := newClient(t, h2)
		for i := range 50 {
			pr, pw := io.Pipe()
			req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, "http://"+front, pr)
			require.NoError(t, err)
			if i%2 == 0 {
				req.ContentLength = 10
			}
			go func() { _, _ = io.WriteString(pw, "hello") }()
			res, err := client.Do(req)
			require.NoError(t, err)
			require.Equal(t, http.StatusForbidden, res.StatusCode)
			require.Equal(t, "no\n", body(t, res))
			go func() {
				_, _ = io.WriteString(pw, "world")
				_ = pw.Close()
			}()
		}
	}
}

func TestShutdownWaitsForRequests(t *testing.T) {
	ctx := testContext(t)
	started, finish := make(chan struct{}), make(chan struct{})
	addr, _ := startHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		<-finish
		_, _ = io.WriteString(w, "done")
	})
	s, front := serve(t, NewBackend(addr))
	type result struct {
		res *http.Response
		err error
	}
	got := make(chan result, 1)
	go func() {
		res, err := newClient(t, false).Get("http://" + front)
		got <- result{res, err}
	}()
	receive(t, started)
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(ctx) }()
	eventually(t, "the listener closes", func() bool {
		c, err := net.Dial("tcp", front)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(finish)
	r := receive(t, got)
	require.NoError(t, r.err)
	require.Equal(t, "done", body(t, r.res))
	require.NoError(t, receive(t, down))
}
