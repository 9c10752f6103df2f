package proxy

import (
	"bufio"
	"net"
	"net/http"
	"sync"
)

// response remembers what became of a response, for the one who has to report
// an error in its place.
type response struct {
	http.ResponseWriter
	// lastOnConn is asked before the final headers go out: must the connection
	// end after this response?
	lastOnConn   func() bool
	gone         func() bool // the client has
	committed    bool        // final headers were written, or the connection was taken over
	code         int         // of the final headers
	unheard      bool        // the client could not be written to
	late         bool        // it had gone when the final headers came
	trailersOnly bool
	// mayExpect is true while the client of an HTTP/2 stream may wait for a 100 Continue: Go's server does not say. It sends
	// none once it has sent another informational response, so one goes before those. Whoever waits for none ignores it.
	mayExpect bool
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(code int) {
	if w.mayExpect && code < http.StatusOK && code != http.StatusSwitchingProtocols {
		w.mayExpect = false
		w.ResponseWriter.WriteHeader(http.StatusContinue)
		if code == http.StatusContinue {
			return
		}
	}
	if code >= http.StatusOK || code == http.StatusSwitchingProtocols {
		w.committed, w.code, w.late = true, code, w.gone()
		w.trailersOnly = w.Header().Get(grpcStatus) != ""
		if code >= http.StatusOK && w.lastOnConn() {
			w.Header().Set("Connection", "close")
		}
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(p []byte) (int, error) {
	w.committed = true
	n, err := w.ResponseWriter.Write(p)
	w.unheard = w.unheard || err != nil
	return n, err
}

// FlushError keeps a gRPC trailers-only response in one frame. Flushed, its
// headers would go without END_STREAM, and a status in them is then no status:
// the client reports a stream that ended without trailers.
func (w *response) FlushError() error {
	if w.trailersOnly {
		return nil
	}
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.unheard = w.unheard || err != nil
	return err
}

func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.committed, w.code = true, http.StatusSwitchingProtocols
	}
	return c, rw, err
}

// bufferPool is the copy buffers of a Switch.
type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

// Get and Put are httputil.BufferPool's.
func (p *bufferPool) Get() []byte  { return p.pool.Get().(*[bufferSize]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[bufferSize]byte)(b)) }
