package proxy

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 3 * time.Minute

	// gRPC servers have no limit of their own; this one bounds what a single
	// client connection can ask of the host.
	maxConcurrentStreams = 4096

	// A stream that its version does not read must not block the others of the
	// same client connection, which may be on another version: so a connection
	// may buffer 16 times what a stream may.
	streamWindow = 1 << 20
	connWindow   = 16 << 20

	// A client that has vanished is noticed after pingAfter + pingTimeout.
	pingAfter   = time.Minute
	pingTimeout = 20 * time.Second

	settleTimeout = time.Second
	settleAfter   = 20 * time.Millisecond
)

// Switch answers on one listener and forwards each request to the backend that
// is current when the request begins.
type Switch struct {
	logf    func(format string, args ...any)
	server  *http.Server
	buffers *bufferPool
	active  counter // requests of all backends, upgraded connections included
	silent  silent
	cancel  context.CancelFunc

	mu      sync.Mutex
	current *Backend
	trial   *Backend // gets a share of the requests
	percent int
	others  []*Backend // see Others; closed ones may be among them
}

// New returns a Switch without a backend. What goes wrong on the way between
// clients and versions is told to logf, one line a call.
func New(logf func(format string, args ...any)) *Switch {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Switch{logf: logf, buffers: newBufferPool(), cancel: cancel}
	s.server = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(lineWriter(logf), "", 0),
		ConnState:         s.silent.note,
		// Upgraded connections are out of the server's reach; Close ends them
		// through the context of their request.
		BaseContext: func(net.Listener) context.Context { return ctx },
		Protocols:   new(http.Protocols),
		// The documentation wants windows below 4 MiB. Go 1.26 takes larger
		// ones; one that does not falls back to its default of 1 MiB.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxConcurrentStreams,
			MaxReadFrameSize:              maxReadFrameSize,
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connWindow,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
		},
	}
	s.server.Protocols.SetHTTP1(true)
	s.server.Protocols.SetUnencryptedHTTP2(true)
	return s
}

type lineWriter func(format string, args ...any)

func (w lineWriter) Write(p []byte) (int, error) {
	w("proxy: %s", strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// Serve answers on l until Close or Shutdown, and closes l. It then returns nil.
func (s *Switch) Serve(l net.Listener) error {
	if err := s.server.Serve(limit(l, connections())); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Point sends the requests that begin from now on to b, and returns the backend
// they went to before. With nil, requests are refused as temporarily
// unavailable. When Point returns, no further request can begin on old, and
// each that has begun there is in old's count: Drain misses none.
func (s *Switch) Point(b *Backend) (old *Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, s.current = s.current, b
	if s.trial == b {
		s.trial = nil
	}
	s.remember(old)
	return old
}

// Try sends that share of the requests that begin from now on to b, until Point
// makes b the current one or Try is called with nil. While there is no current
// one, b gets all. When Try returns, no further request can begin on the backend
// that was tried before.
func (s *Switch) Try(b *Backend, percent int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trial, s.percent = b, percent
	s.remember(b)
}

// acquire counts a request in on the current backend, or the one that is tried,
// or the one that Towards has chosen. Holding mu over both the choice and the
// count is what Point's promise rests on.
func (s *Switch) acquire(in *http.Request) (*Backend, *pool) {
	if b, ok := in.Context().Value(towardsKey{}).(*Backend); ok {
		return b, b.acquire()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.current
	if s.trial != nil && (b == nil || rand.IntN(100) < s.percent) {
		b = s.trial
	}
	if b == nil {
		return nil, nil
	}
	return b, b.acquire()
}

// acquireOther counts a request in on the current backend if that is another.
func (s *Switch) acquireOther(than *Backend) (*Backend, *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || s.current == than {
		return nil, nil
	}
	return s.current, s.current.acquire()
}

// Settle waits, when the listener is closed, until all connections that it has
// accepted have sent something, at most for a while. To a Shutdown that comes
// before, the first request of a connection is not under way yet: it is dropped.
func (s *Switch) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_ = s.silent.n.wait(ctx)
	// What was sent is a request under way a moment later.
	select {
	case <-time.After(settleAfter):
	case <-ctx.Done():
	}
}

// Shutdown stops listening, tells HTTP/2 clients to go away, waits for the
// requests in flight, then closes the connections. When ctx ends first, its
// error is returned and the rest is left to Close.
func (s *Switch) Shutdown(ctx context.Context) error {
	if err := s.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut down with %d requests in flight: %w", s.active.value(), err)
	}
	if err := s.active.wait(ctx); err != nil {
		return fmt.Errorf("shut down with %d requests in flight: %w", s.active.value(), err)
	}
	return nil
}

// Close stops listening and ends all client connections at once. Backends stay
// as they are; they belong to whoever made them.
func (s *Switch) Close() error {
	s.cancel()
	if err := s.server.Close(); err != nil {
		return fmt.Errorf("close the proxy: %w", err)
	}
	return nil
}
