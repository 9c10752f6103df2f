package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

const (
	// replayLimit is how much of a body is kept to be sent again. A gRPC server
	// that says GOAWAY (graceful stop, maximum connection age) leaves calls
	// unprocessed that the transport can repeat only from the first byte.
	replayLimit = 256 << 10
	readSize    = 16 << 10
)

var (
	errBodyClosed     = errors.New("request body closed")
	errNotReplayable  = errors.New("request body no longer at hand")
	errUnexpectedBody = errors.New("read of a request body failed")
)

// replay is a client's request body that a transport may send more than once,
// until commit or until more than replayLimit bytes were read.
//
// It also decouples the two sides: closing an attempt wakes its reader even
// while the client is silent. Without this a transport whose stream was reset
// waits for the client's next byte before it reports the reset.
type replay struct {
	src     io.Reader
	in, out http.Header // request trailers: as received, as sent
	buffers *bufferPool

	mu        sync.Mutex
	cond      sync.Cond
	buf       []byte // what was read, from offset start on
	start     int64
	err       error // what ended src
	reading   bool
	committed bool
	current   *attempt // the only one that may read
}

func newReplay(in *http.Request, out http.Header, buffers *bufferPool) *replay {
	r := &replay{src: in.Body, in: in.Trailer, out: out, buffers: buffers}
	r.cond.L = &r.mu
	return r
}

// attempt is one sending of the body.
type attempt struct {
	r   *replay
	pos int64
}

// again returns the body from its first byte and closes the attempt before. It
// has the signature of http.Request.GetBody.
func (r *replay) again() (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.committed {
		return nil, errNotReplayable
	}
	r.current = &attempt{r: r}
	r.cond.Broadcast()
	return r.current, nil
}

// commit says that there will be no further attempt; nothing is kept any more.
func (r *replay) commit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.committed = true
	if r.current != nil {
		r.trim(r.current.pos)
	}
}

// close ends the current attempt. It must be called before the handler returns,
// after which a server's request body may not be read.
func (r *replay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.committed = true
	r.current = nil
	r.buf = nil
	r.cond.Broadcast()
}

// ended reports whether the client's side has been read to its end.
func (r *replay) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Is(r.err, io.EOF)
}

// failed is the error of the client's side, if that is what ended the body.
func (r *replay) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil || errors.Is(r.err, io.EOF) {
		return nil
	}
	return errors.Join(errUnexpectedBody, r.err)
}

func (a *attempt) Read(p []byte) (int, error) {
	r := a.r
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.current != a {
			return 0, errBodyClosed
		}
		if off := int(a.pos - r.start); off < len(r.buf) {
			n := copy(p, r.buf[off:])
			a.pos += int64(n)
			r.trim(a.pos)
			return n, nil
		}
		if r.err != nil {
			if errors.Is(r.err, io.EOF) {
				r.copyTrailers()
			}
			return 0, r.err
		}
		if !r.reading {
			r.reading = true
			go r.fill()
		}
		r.cond.Wait()
	}
}

// Close has no effect on the client's body, which stays open for the next
// attempt.
func (a *attempt) Close() error {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	if a.r.current == a {
		a.r.current = nil
		a.r.cond.Broadcast()
	}
	return nil
}

// fill reads once from the client. It runs only when a reader waits for more,
// so that a slow version slows the client down.
func (r *replay) fill() {
	b := r.buffers.Get()
	defer r.buffers.Put(b)
	n, err := r.src.Read(b[:readSize])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reading = false
	r.err = err
	r.buf = append(r.buf, b[:n]...)
	if r.start+int64(len(r.buf)) > replayLimit {
		r.committed = true
	}
	r.cond.Broadcast()
}

// trim forgets what was read before pos, once that can't be asked for again.
func (r *replay) trim(pos int64) {
	if !r.committed || pos < r.start+int64(len(r.buf)) {
		return
	}
	r.start = pos
	r.buf = r.buf[:0]
	if cap(r.buf) > 2*readSize {
		r.buf = nil
	}
}

// copyTrailers fills in the announced trailers, which the server has received
// when the body has ended. The transport that reads the body sends them next.
func (r *replay) copyTrailers() {
	for k := range r.out {
		r.out[k] = r.in[k]
	}
}
