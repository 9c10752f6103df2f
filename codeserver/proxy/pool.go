package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	dialTimeout = 5 * time.Second

	// An idle HTTP/1.1 connection is given up before the version does so:
	// gunicorn closes after 2 s by default and uvicorn after 5 s, and a POST
	// sent into that close fails and may not be repeated. A new loopback
	// connection costs microseconds.
	idleHTTP1 = time.Second
	idleHTTP2 = 90 * time.Second

	idleConnsPerBackend = 256
	maxHeaderBytes      = 1 << 20
	maxReadFrameSize    = 64 << 10

	// A version that answers neither 100 Continue nor anything final gets the
	// body after this long, as RFC 9110, section 10.1.1 wants it.
	expectContinueTimeout = time.Second
)

var errBackendClosed = errors.New("backend closed")

// dialError says that a request failed before any byte of it was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// pool owns every connection to one backend, so that close leaves none.
type pool struct {
	addr         string
	http1, http2 *http.Transport

	mu     sync.Mutex
	conns  map[*conn]struct{}
	closed bool
}

func newPool(addr string) *pool {
	p := &pool{addr: addr, conns: map[*conn]struct{}{}}
	p.http1 = p.transport(idleHTTP1)
	p.http1.Protocols.SetHTTP1(true)
	p.http1.MaxConnsPerHost = connections() // a client's one connection can bring thousands of requests; others wait
	p.http2 = p.transport(idleHTTP2)
	p.http2.Protocols.SetUnencryptedHTTP2(true)
	// No SendPingTimeout: gRPC servers take a ping every few seconds on a quiet
	// connection for an attack and cut it (GOAWAY too_many_pings, by default
	// after three within five minutes each). The backend is a process on this
	// host; when it dies, the kernel says so.
	p.http2.HTTP2 = &http.HTTP2Config{
		MaxReceiveBufferPerStream: 4<<20 - 1,
		MaxReadFrameSize:          maxReadFrameSize,
	}
	return p
}

// transport has no proxy from the environment and adds no Accept-Encoding: what
// the client asked for is what the version is asked for.
func (p *pool) transport(idle time.Duration) *http.Transport {
	return &http.Transport{
		DialContext:            p.dial,
		Protocols:              new(http.Protocols),
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idleConnsPerBackend,
		IdleConnTimeout:        idle,
		ExpectContinueTimeout:  expectContinueTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ReadBufferSize:         32 << 10,
		WriteBufferSize:        32 << 10,
	}
}

// send forwards a request that has been acquired from p's backend.
func (p *pool) send(out *http.Request, grpc bool) (*http.Response, error) {
	out.URL.Scheme, out.URL.Host = "http", p.addr
	if grpc {
		return p.http2.RoundTrip(out)
	}
	return p.http1.RoundTrip(out)
}

// conn is a TCP connection that p knows about until it is closed. It embeds the
// concrete type to keep CloseWrite, which half-closed upgrades need.
type conn struct {
	*net.TCPConn
	pool *pool
}

func (c *conn) Close() error {
	c.pool.mu.Lock()
	delete(c.pool.conns, c)
	c.pool.mu.Unlock()
	return c.TCPConn.Close()
}

// dial ignores the address the transport asks for: a pool has only one.
func (p *pool) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if p.isClosed() {
		return nil, &dialError{errBackendClosed}
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	nc, err := dialer.DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, &dialError{err}
	}
	c := &conn{TCPConn: nc.(*net.TCPConn), pool: p}
	if !p.add(c) {
		_ = nc.Close()
		return nil, &dialError{errBackendClosed}
	}
	return c, nil
}

func (p *pool) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *pool) add(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

// close ends every connection and refuses new ones.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	conns := p.conns
	p.conns = map[*conn]struct{}{}
	p.mu.Unlock()
	for c := range conns {
		_ = c.TCPConn.Close()
	}
	// The connections are gone; this stops what the transports keep for them.
	p.http1.CloseIdleConnections()
	p.http2.CloseIdleConnections()
}
