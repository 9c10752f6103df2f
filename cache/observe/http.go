package observe

import (
	"io"
	"net/http"
	"strconv"
	"strings"
)

// HTTP returns next with its requests counted. It comes before all other handlers.
func (v *Observer) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, c := v.begin(r.Context(), httpMethod(r))
		w.Header().Set("X-Request-Id", c.id)
		seen := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		done := false
		defer func() {
			if !done { // it panicked
				seen.code = http.StatusInternalServerError
			}
			v.end(ctx, c, strconv.Itoa(seen.code), httpKind(seen.code), nil)
		}()
		next.ServeHTTP(seen, r.WithContext(ctx))
		done = true
	})
}

// httpMethod names a request by its verb and the kind of what it is about: paths hold digests, and would be without number.
func httpMethod(r *http.Request) string {
	verb, kind := "other", "other"
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut:
		verb = r.Method
	}
	parts := strings.Split(r.URL.Path, "/")
	if n := len(parts); n >= 2 && (parts[n-2] == "ac" || parts[n-2] == "cas") {
		kind = parts[n-2]
	}
	return "http/" + verb + " " + kind
}

func httpKind(code int) failure {
	switch {
	case code < 400 || code == http.StatusNotFound:
		return fine
	case code < 500:
		return theirs
	}
	return ours
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	code  int
	wrote bool
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(code int) {
	if !w.wrote {
		w.code, w.wrote = code, code >= 200
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *statusWriter) Write(b []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(b)
}

// ReadFrom implements io.ReaderFrom: what is below may have a faster way.
func (w *statusWriter) ReadFrom(r io.Reader) (int64, error) {
	w.wrote = true
	return io.Copy(w.ResponseWriter, r)
}

// Unwrap lets http.ResponseController reach what is below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
