package proxy

import (
	"net/http"
)

const (
	grpcStatus      = "Grpc-Status"
	grpcUnavailable = "14"

	msgNoVersion = "no version serves here at this moment: it starts, or has failed; try again"
	msgNoAnswer  = "the version behind this address did not answer"
	msgBadBody   = "the request body could not be read"
)

// refuse answers that there is no backend.
func (x *exchange) refuse() {
	x.w.Header().Set("Retry-After", "1")
	x.answer(http.StatusServiceUnavailable, msgNoVersion)
}

// fail is ReverseProxy's ErrorHandler. The cause goes to the log: it names
// addresses inside the host that are none of a client's business.
func (x *exchange) fail(_ http.ResponseWriter, _ *http.Request, err error) {
	if x.in.Context().Err() != nil {
		// The client has gone. An answer would only look like success.
		panic(http.ErrAbortHandler)
	}
	x.s.logf("proxy: %s %q on %s: %v", x.in.Method, x.in.URL.Path, x.backend.addr, err)
	switch {
	case x.w.committed:
		panic(http.ErrAbortHandler)
	case x.body != nil && x.body.failed() != nil:
		x.answer(http.StatusBadRequest, msgBadBody)
	default:
		x.answer(http.StatusBadGateway, msgNoAnswer)
	}
}

// answer sends one line of text, or for a gRPC call its counterpart: a response
// of headers only that says UNAVAILABLE.
func (x *exchange) answer(code int, message string) {
	if !x.grpc {
		http.Error(x.w, message, code)
		return
	}
	h := x.w.Header()
	h.Del("Retry-After")
	h.Set("Content-Type", "application/grpc")
	h.Set(grpcStatus, grpcUnavailable)
	h.Set("Grpc-Message", message)
	x.w.WriteHeader(http.StatusOK)
}
