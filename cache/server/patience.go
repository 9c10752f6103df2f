package server

import (
	"errors"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// patience ends a request whose client neither sends nor takes a byte for a while.
type patience struct {
	control *http.ResponseController
	idle    time.Duration
}

func newPatience(w http.ResponseWriter, idle time.Duration) *patience {
	p := &patience{http.NewResponseController(w), idle}
	p.extend()
	return p
}

// extend starts the time anew. Not every ResponseWriter knows deadlines: in a test there is no connection behind it.
func (p *patience) extend() {
	if p.idle > 0 {
		t := time.Now().Add(p.idle)
		_ = p.control.SetReadDeadline(t)
		_ = p.control.SetWriteDeadline(t)
	}
}

// end gives the connection back. The server sets a new deadline for reading, also from a client that still trickles the
// rest of a body that nobody wants, but none for writing.
func (p *patience) end() { _ = p.control.SetWriteDeadline(time.Time{}) }

func (p *patience) reader(r io.Reader) io.Reader { return &patientReader{r, p} }

func (p *patience) writer(w http.ResponseWriter) http.ResponseWriter { return &patientWriter{w, p} }

type patientReader struct {
	io.Reader
	p *patience
}

func (r *patientReader) Read(b []byte) (int, error) {
	r.p.extend()
	n, err := r.Reader.Read(b)
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = status.Errorf(codes.DeadlineExceeded, "%v: %v", errIdle, err)
	}
	return n, err
}

type patientWriter struct {
	http.ResponseWriter
	p *patience
}

func (w *patientWriter) Write(b []byte) (int, error) {
	w.p.extend()
	return w.ResponseWriter.Write(b)
}
