package proxy

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
)

// Intercept has requests go through a handler of the caller's, which wraps the
// one that forwards them: it may answer by itself, or choose the version with
// Towards. It must be called before Serve.
func (s *Switch) Intercept(wrap func(forward http.Handler) http.Handler) {
	s.server.Handler = wrap(s.server.Handler)
}

type towardsKey struct{}

// Towards returns the request as one that is to go to b, whichever backend is
// current. It goes to the current one if no connection to b can be had.
func Towards(b *Backend, in *http.Request) *http.Request {
	return in.WithContext(context.WithValue(in.Context(), towardsKey{}, b))
}

// Current returns the backend that requests go to, nil if there is none.
func (s *Switch) Current() *Backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Others returns the backends that are not the current one, newest first, and
// that requests have gone to, or go to by Try, until they are closed.
func (s *Switch) Others() []*Backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.others = slices.DeleteFunc(s.others, (*Backend).isClosed)
	return slices.Clone(s.others)
}

// Remember counts b among the Others: requests have gone to it, through another
// Switch, and may still be under way.
func (s *Switch) Remember(b *Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remember(b)
}

func (s *Switch) remember(b *Backend) {
	s.others = slices.DeleteFunc(s.others, func(x *Backend) bool { return x == b || x == s.current || x.isClosed() })
	if b != nil && b != s.current {
		s.others = slices.Insert(s.others, 0, b)
	}
}

// ReadCall reads the message of a unary gRPC call, of at most limit bytes. If
// it cannot be had, ok is false. The returned request is as the one before,
// with nothing of its body gone.
func ReadCall(in *http.Request, limit int) (message []byte, same *http.Request, ok bool) {
	body, err := io.ReadAll(io.LimitReader(in.Body, int64(limit+framePrefix)+1))
	again := *in
	again.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), failing{err}, in.Body), in.Body}
	if err != nil || len(body) > limit+framePrefix {
		return nil, &again, false
	}
	message, ok = unframe(body, in.Header, limit)
	return message, &again, ok
}

// failing is the end of a body that broke off with an error, nothing if that is nil.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// AnswerCall answers a unary gRPC call with an encoded message.
func AnswerCall(w http.ResponseWriter, message []byte) {
	w.Header().Set("Content-Type", "application/grpc")
	_, _ = w.Write(frame(message)) // the client has gone, or hears of it
	w.Header().Set(http.TrailerPrefix+grpcStatus, "0")
}
