package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// witness is a version that keeps what reaches it, byte for byte and as requests.
type witness struct {
	mu       sync.Mutex
	raw      bytes.Buffer
	requests []string
}

type tappedListener struct {
	net.Listener
	w *witness
}

func (l tappedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return tappedConn{c, l.w}, err
}

type tappedConn struct {
	net.Conn
	w *witness
}

func (c tappedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.raw.Write(b[:n])
	return n, err
}

func (w *witness) saw() (raw string, requests []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	raw, requests = w.raw.String(), w.requests
	w.raw.Reset()
	w.requests = nil
	return raw, requests
}

// startWitness returns it and the address of a Switch in front.
func startWitness(t *testing.T) (*witness, *Switch, string) {
	w := &witness{}
	l := listen(t)
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.requests = append(w.requests, r.Method+" "+r.Host+" "+r.RequestURI)
	}), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = server.Serve(tappedListener{l, w}) }()
	t.Cleanup(func() { server.Close() })
	s, front := serve(t, NewBackend(l.Addr().String()))
	return w, s, front
}

// TestSmuggling sends requests that two servers could read as different ones, each with another request where the second
// would look. None of them gets that far, and whatever is passed on has one meaning.
func TestSmuggling(t *testing.T) {
	const hidden = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	post := func(headers, body string) string { return "POST /p HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" + body }
	for name, c := range map[string]struct {
		request string
		refused bool // else it is passed on, with the hidden part as the body that it is
	}{
		"two lengths":             {post("Content-Length: 0\r\nContent-Length: 35\r\n", hidden), true},
		"a list of lengths":       {post("Content-Length: 0, 35\r\n", hidden), true},
		"a signed length":         {post("Content-Length: +0\r\n", hidden), true},
		"a negative length":       {post("Content-Length: -1\r\n", hidden), true},
		"a length in hexadecimal": {post("Content-Length: 0x0\r\n", hidden), true},
		"a huge length":           {post("Content-Length: 99999999999999999999\r\n", hidden), true},
		"an unknown coding":       {post("Content-Length: 0\r\nTransfer-Encoding: xchunked\r\n", hidden), true},
		"chunked, identity":       {post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"+hidden), true},
		"chunked twice":           {post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+hidden), true},
		"space before the colon":  {post("Transfer-Encoding : chunked\r\nContent-Length: 0\r\n", hidden), true},
		"tab in a header's name":  {post("Transfer\tEncoding: chunked\r\nContent-Length: 0\r\n", hidden), true},
		"NUL in a header":         {post("A: b\x00c\r\nContent-Length: 0\r\n", hidden), true},
		"CR alone in a header":    {post("A: b\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n", hidden), true},
		"a folded first header":   {"POST /p HTTP/1.1\r\n Host: x\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + hidden, true},
		"chunk of negative size":  {post("Transfer-Encoding: chunked\r\n", "-1\r\n\r\n"+hidden), true},
		"chunk of 0x size":        {post("Transfer-Encoding: chunked\r\n", "0x0\r\n\r\n"+hidden), true},
		"chunk of a huge size":    {post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"+hidden), true},
		"chunk without an end":    {post("Transfer-Encoding: chunked\r\n", "1\r\naXX0\r\n\r\n"+hidden), true},
		"no Host":                 {"GET /p HTTP/1.1\r\n\r\n" + hidden, true},
		"two Hosts":               {"GET /p HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + hidden, true},
		"a Host with a path":      {"GET /p HTTP/1.1\r\nHost: x/y z\r\n\r\n" + hidden, true},
		"no version":              {"GET /p\r\n\r\n" + hidden, true},
		"another version":         {"GET /p HTTP/3.7\r\nHost: x\r\n\r\n" + hidden, true},
		"a method with a space":   {"GE T /p HTTP/1.1\r\nHost: x\r\n\r\n" + hidden, true},
		"a target with a space":   {"GET /p GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" + hidden, true},
		"CONNECT":                 {"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n" + hidden, true},
		"a body of a GET":         {"GET /p HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\n" + hidden, false},
		"a folded header":         {post("A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 35\r\n", hidden), false},
		"length in Connection":    {post("Connection: Content-Length\r\nContent-Length: 35\r\n", hidden), false},
		"an upgrade with a body":  {post("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 35\r\n", hidden), false},
		"an upgrade to h2c":       {post("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 35\r\n", hidden), false},
		"an expectation":          {post("Expect: 100-continue\r\nContent-Length: 35\r\n", hidden), false},
		"both, chunked first": {
			post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden)), false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Len(t, hidden, 35)
			w, s, front := startWitness(t)
			conn, err := net.Dial("tcp", front)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(deadline)))
			_, err = io.WriteString(conn, c.request)
			require.NoError(t, err)
			in := bufio.NewReader(conn)
			res, err := http.ReadResponse(in, nil)
			if err == nil && res.StatusCode == http.StatusContinue {
				res, err = http.ReadResponse(in, nil)
			}
			if c.refused {
				_, rest := io.Copy(io.Discard, in) // the connection is of no use any more
				require.NotErrorIs(t, rest, os.ErrDeadlineExceeded)
			}
			conn.Close()
			require.Eventually(t, func() bool { return s.active.value() == 0 }, deadline, time.Millisecond)
			raw, requests := w.saw()
			if c.refused {
				if err == nil { // else the connection was just closed
					require.GreaterOrEqual(t, res.StatusCode, 400, "%s", raw)
				}
			} else {
				require.NoError(t, err)
				require.Equal(t, 200, res.StatusCode)
				require.Len(t, requests, 1, "%q", raw)
			}
			for _, r := range requests {
				require.NotContains(t, r, "smuggled")
			}
			head, _, _ := strings.Cut(raw, "\r\n\r\n")
			head = strings.ToLower(head)
			lengths, codings := strings.Count(head, "\r\ncontent-length:"), strings.Count(head, "\r\ntransfer-encoding:")
			require.LessOrEqual(t, lengths+codings, 1, "%q", raw)
			require.NotContains(t, head, "\r\n ")
			require.NotContains(t, head, "\r\nupgrade: h2c")
		})
	}
}

// TestForwardProxy asks for other servers: whatever a target's form, it is the version that answers, and nobody else is asked.
func TestForwardProxy(t *testing.T) {
	w, _, front := startWitness(t)
	elsewhere := listen(t)
	defer elsewhere.Close()
	asked := make(chan struct{})
	go func() {
		if c, err := elsewhere.Accept(); err == nil {
			c.Close()
			close(asked)
		}
	}()
	there := elsewhere.Addr().String()
	for _, target := range []string{
		"http://" + there + "/", "http://user@" + there + "/", "//" + there + "/", "/http://" + there + "/", "/..//" + there, "*",
	} {
		method := http.MethodGet
		if target == "*" {
			method = http.MethodOptions
		}
		conn, err := net.Dial("tcp", front)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(deadline)))
		_, err = io.WriteString(conn, method+" "+target+" HTTP/1.1\r\nHost: "+there+"\r\nX-Forwarded-Host: evil\r\nForwarded: for=1.2.3.4\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		raw, requests := w.saw()
		require.Contains(t, []int{200, 400}, res.StatusCode, target)
		if res.StatusCode == 200 && target != "*" {
			require.Len(t, requests, 1, target)
			require.NotContains(t, raw, "evil", "what a client says of its way here is not believed")
		}
	}
	select {
	case <-asked:
		require.Fail(t, "somebody else was asked")
	default:
	}
}

// TestSlowHeaders has many connections send headers as slowly as they can: others are answered, and they are ended.
func TestSlowHeaders(t *testing.T) {
	addr, _ := startHTTP(t, named("a"))
	s := New(t.Logf)
	s.server.ReadHeaderTimeout = 300 * time.Millisecond
	s.Point(NewBackend(addr))
	l := listen(t)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() {
		require.NoError(t, s.Close())
		require.NoError(t, <-done)
	}()
	front := l.Addr().String()
	var slow []net.Conn
	for range 200 {
		conn, err := net.Dial("tcp", front)
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nA: ")
		require.NoError(t, err)
		slow = append(slow, conn)
	}
	res, err := http.Get("http://" + front)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, 200, res.StatusCode)
	for _, conn := range slow {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(deadline)))
		_, err := io.Copy(io.Discard, conn)
		require.NoError(t, err, "the server ends it")
	}
}

// h2 opens an HTTP/2 connection by prior knowledge, for frames that no client sends.
func h2(t *testing.T, front string) (net.Conn, *http2.Framer) {
	conn, err := net.Dial("tcp", front)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(deadline)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	f := http2.NewFramer(conn, conn)
	require.NoError(t, f.WriteSettings())
	return conn, f
}

func headers(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}

// TestHTTP2Floods sends what costs a client nothing: streams that it gives up at once, pings and settings whose answers it
// does not read. The connection is ended, or keeps within its bounds; others are answered, and nothing is left under way.
func TestHTTP2Floods(t *testing.T) {
	_, s, front := startWitness(t)
	get := headers(":method", "GET", ":scheme", "http", ":authority", "x", ":path", "/")
	for name, flood := range map[string]func(f *http2.Framer, i uint32) error{
		"rapid reset": func(f *http2.Framer, i uint32) error {
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: get, EndStream: true, EndHeaders: true})
			if err == nil {
				err = f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
			}
			return err
		},
		"pings":    func(f *http2.Framer, _ uint32) error { return f.WritePing(false, [8]byte{}) },
		"settings": func(f *http2.Framer, _ uint32) error { return f.WriteSettings() },
		"continuations": func(f *http2.Framer, i uint32) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get})
			}
			return f.WriteContinuation(1, false, headers("a", strings.Repeat("b", 1000)))
		},
		"empty data": func(f *http2.Framer, i uint32) error {
			if i == 0 {
				return f.WriteHeaders(http2.HeadersFrameParam{
					StreamID: 1, EndHeaders: true,
					BlockFragment: headers(":method", "POST", ":scheme", "http", ":authority", "x", ":path", "/"),
				})
			}
			return f.WriteData(1, false, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, f := h2(t, front)
			for i := range uint32(50_000) {
				if flood(f, i) != nil {
					break // it was ended
				}
				if i%10_000 == 100 {
					res, err := http.Get("http://" + front)
					require.NoError(t, err)
					require.NoError(t, res.Body.Close())
					require.Equal(t, 200, res.StatusCode)
				}
			}
			conn.Close()
			require.Eventually(t, func() bool { return s.active.value() == 0 }, deadline, 10*time.Millisecond, "nothing is left")
		})
	}
}

// TestHTTP2Shapes sends requests over HTTP/2 that would be two, or another, if they were written down as HTTP/1.1.
func TestHTTP2Shapes(t *testing.T) {
	base := []string{":method", "GET", ":scheme", "http", ":authority", "x", ":path", "/p"}
	with := func(more ...string) []byte { return headers(append(append([]string{}, base...), more...)...) }
	instead := func(name, value string) []byte {
		pairs := append([]string{}, base...)
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				pairs[i+1] = value
			}
		}
		return headers(pairs...)
	}
	for name, block := range map[string][]byte{
		"line break in a value":    with("a", "b\r\nGET /smuggled HTTP/1.1"),
		"line break in a name":     with("a\r\nb", "c"),
		"line break in the path":   instead(":path", "/ HTTP/1.1\r\nGET /smuggled"),
		"line break in the method": instead(":method", "GET /smuggled HTTP/1.1\r\nx"),
		"line break in the host":   instead(":authority", "x\r\nGET /smuggled"),
		"a path without a slash":   instead(":path", "smuggled"),
		"no path":                  headers(base[:6]...),
		"two paths":                with(":path", "/smuggled"),
		"an unknown pseudo header": with(":evil", "x"),
		"a pseudo header late":     headers(":method", "GET", ":scheme", "http", ":authority", "x", "a", "b", ":path", "/smuggled"),
		"a name in capitals":       with("Transfer-Encoding", "chunked"),
		"transfer-encoding":        with("transfer-encoding", "chunked"),
		"connection":               with("connection", "content-length"),
		"upgrade":                  with("upgrade", "websocket"),
		"a length and no body":     with("content-length", "35"),
		"CONNECT":                  headers(":method", "CONNECT", ":authority", "169.254.169.254:80"),
	} {
		t.Run(name, func(t *testing.T) {
			w, s, front := startWitness(t)
			conn, f := h2(t, front)
			require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true}))
			f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			status := ""
			for status == "" {
				frame, err := f.ReadFrame()
				require.NoError(t, err)
				switch frame := frame.(type) {
				case *http2.RSTStreamFrame, *http2.GoAwayFrame:
					status = "refused"
				case *http2.MetaHeadersFrame:
					status = frame.PseudoValue("status")
				}
			}
			conn.Close()
			require.Eventually(t, func() bool { return s.active.value() == 0 }, deadline, time.Millisecond)
			raw, requests := w.saw()
			if name == "a length and no body" { // which is passed on without the length
				require.Equal(t, "200", status)
				require.Equal(t, []string{"GET x /p"}, requests)
				require.NotContains(t, strings.ToLower(raw), "content-length")
				return
			}
			require.NotRegexp(t, "^[123]", status)
			require.Empty(t, requests)
		})
	}
}
