package proxy

import (
	"errors"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"
)

// exchange is one request on its way to the version it began on, and back.
type exchange struct {
	s       *Switch
	in      *http.Request
	w       *response
	grpc    bool
	backend *Backend
	pool    *pool
	body    *replay // nil if the request has none
}

func (s *Switch) serveHTTP(w http.ResponseWriter, in *http.Request) {
	s.active.inc()
	defer s.active.dec()
	begin, finished := time.Now(), false
	x := &exchange{s: s, in: in, grpc: IsGRPC(in)}
	x.w = &response{
		ResponseWriter: w, lastOnConn: x.unreadHTTP1, gone: func() bool { return in.Context().Err() != nil },
		mayExpect: in.ProtoMajor == 2 && in.ContentLength != 0,
	}
	if in.Method == http.MethodConnect || in.URL.Opaque != "" {
		// What follows a CONNECT was meant for whom it asked for, and is no request of this connection.
		w.Header().Set("Connection", "close")
		http.Error(w, "this server is not a forward proxy", http.StatusMethodNotAllowed)
		return
	}
	if x.backend, x.pool = s.acquire(in); x.backend == nil {
		x.refuse()
		return
	}
	defer func() { // late: retry may change backends
		x.measure(begin, finished)
		x.backend.release()
	}()
	defer func() {
		if x.body != nil {
			x.body.close()
		}
	}()
	if in.ProtoMajor == 1 {
		// HTTP/2 streams are full duplex as they are. An error means that the
		// connection can't be, which costs nothing but that.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	declineUpgrade(in)
	(&httputil.ReverseProxy{
		Rewrite:       x.rewrite,
		Transport:     x,
		FlushInterval: -1,
		ErrorHandler:  x.fail,
		ErrorLog:      s.server.ErrorLog,
		BufferPool:    s.buffers,
	}).ServeHTTP(x.w, in)
	finished = true
}

// IsGRPC is by the gRPC specification: application/grpc, application/grpc+proto
// and the like, over HTTP/2 only. application/grpc-web is not gRPC.
func IsGRPC(r *http.Request) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(r.Header.Get("Content-Type")), "application/grpc")
	return ok && r.ProtoMajor == 2 && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// declineUpgrade takes a request for what it is without its upgrade, as any
// server may, in two cases. Through an upgrade to HTTP/2 a client would tie its
// connection, with all requests to come, to the version of this one. (RFC 9113
// has dropped the mechanism.) And the connection of a request with a body can't
// be handed over while the body is read from it.
func declineUpgrade(in *http.Request) {
	if strings.EqualFold(in.Header.Get("Upgrade"), "h2c") || in.ContentLength != 0 {
		in.Header.Del("Upgrade")
		in.Header.Del("Http2-Settings")
	}
}

// unreadHTTP1 reports that an HTTP/1.1 answer comes before the end of its
// request's body. Such a connection isn't used again: net/http, in full duplex,
// starts to watch it for the next request when the handler has returned and the
// rest of the body has gone by, and panics over its own read of that request.
func (x *exchange) unreadHTTP1() bool {
	return x.in.ProtoMajor == 1 && x.body != nil && !x.body.ended()
}

// rewrite keeps what the client sent, Host and path and query to the letter,
// and says where it came from. ReverseProxy has removed the X-Forwarded headers
// of the client's own.
func (x *exchange) rewrite(r *httputil.ProxyRequest) {
	r.SetXForwarded()
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	if r.Out.Body == nil || r.Out.Body == http.NoBody {
		return
	}
	x.body = newReplay(r.In, r.Out.Trailer, x.s.buffers)
	r.Out.GetBody = x.body.again
	r.Out.Body, _ = x.body.again() // fails only once committed
	if len(r.Out.Trailer) > 0 && !x.grpc {
		// Said outright, or the transport first probes an unsized body and
		// reads the trailers' names while the body's end sets their values.
		r.Out.TransferEncoding = []string{"chunked"}
	}
}

// RoundTrip sends the request to its version. If that one has just died, and
// nothing was sent to it, the version that has taken its place gets it.
func (x *exchange) RoundTrip(out *http.Request) (*http.Response, error) {
	res, err := x.pool.send(out, x.grpc)
	var dial *dialError
	if errors.As(err, &dial) && x.moveOn() {
		if again, bodyErr := x.repeat(out); bodyErr == nil {
			res, err = x.pool.send(again, x.grpc)
		}
	}
	if err == nil && x.body != nil {
		x.body.commit() // transports repeat nothing after an answer
	}
	return res, err
}

// moveOn changes to the current backend and reports whether that is another. The
// one before has failed.
func (x *exchange) moveOn() bool {
	b, p := x.s.acquireOther(x.backend)
	if b == nil {
		return false
	}
	x.backend.stats.end(true)
	x.backend.release()
	x.backend, x.pool = b, p
	return true
}

// repeat returns the request for a second sending: the transport has closed the
// body of the first.
func (x *exchange) repeat(out *http.Request) (*http.Request, error) {
	if x.body == nil {
		return out, nil
	}
	body, err := x.body.again()
	if err != nil {
		return nil, err
	}
	again := *out
	again.Body = body
	return &again, nil
}
