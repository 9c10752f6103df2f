package page

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"
)

const (
	// maxBody bounds what the page's script sends: a token at most.
	maxBody = 20 << 10
	// bodyTime is how long it may take.
	bodyTime = 10 * time.Second
)

// Whole returns a handler of requests whose bodies have come, all of them and in time. Who sends one slowly, where nobody
// reads it either, would have the connection for as long as he likes: the server waits for the rest after its answer.
func Whole(next http.Handler) http.Handler { return whole(bodyTime, next) }

func whole(within time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		deadlines := http.NewResponseController(w)
		_ = deadlines.SetReadDeadline(time.Now().Add(within)) // a recorder of tests has none
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			fail(w, http.StatusRequestEntityTooLarge, "the body is too large")
			return
		case err != nil:
			fail(w, http.StatusRequestTimeout, "the body did not come in time")
			return
		}
		_ = deadlines.SetReadDeadline(time.Time{})
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// readJSON reads the body of a request, or answers why it cannot.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, "the body has to be application/json")
		return false
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && d.More() {
		err = errors.New("there is more than one value")
	}
	if err != nil {
		fail(w, http.StatusBadRequest, "the body is not what the page sends: "+err.Error())
	}
	return err == nil
}

// writeJSON answers with JSON, in which nothing looks like HTML.
func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // who is gone needs no answer
}
