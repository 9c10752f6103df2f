package server

import (
	"errors"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// patience ends a request whose client sends, or takes, next to nothing for a while; see progress.
type patience struct {
	control *http.ResponseController
	idle    time.Duration
	in, out *progress
}

func newPatience(w http.ResponseWriter, idle time.Duration) *patience {
	p := &patience{http.NewResponseController(w), idle, newProgress(idle), newProgress(idle)}
	p.read(idle)
	p.write(idle)
	return p
}

// read and write set deadlines. Not every ResponseWriter knows them: in a test there is no connection behind it.
func (p *patience) read(d time.Duration) {
	if p.idle > 0 {
		_ = p.control.SetReadDeadline(time.Now().Add(d))
	}
}

func (p *patience) write(d time.Duration) {
	if p.idle > 0 {
		_ = p.control.SetWriteDeadline(time.Now().Add(d))
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

// Read implements io.Reader. A body that does not come whole is the client's failure, whatever the store makes of it.
func (r *patientReader) Read(b []byte) (int, error) {
	r.p.read(r.p.in.wait())
	n, err := r.Reader.Read(b)
	r.p.in.done(n)
	r.p.write(r.p.idle) // there is time for an answer, however long the body took
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil || err == io.EOF: //nolint:errorlint // io.EOF as readers return it
	case errors.As(err, &timeout) && timeout.Timeout():
		err = status.Errorf(codes.DeadlineExceeded, "%v: %v", errIdle, err)
	default:
		err = status.Errorf(codes.InvalidArgument, "the body broke off: %v", err)
	}
	return n, err
}

type patientWriter struct {
	http.ResponseWriter
	p *patience
}

// Write implements io.Writer.
func (w *patientWriter) Write(b []byte) (int, error) {
	w.p.write(w.p.out.wait())
	n, err := w.ResponseWriter.Write(b)
	w.p.out.done(n)
	return n, err
}
