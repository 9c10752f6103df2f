package page

import (
	"encoding/json"
	"errors"
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

// readJSON reads the body of a request, or answers why it cannot.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, "the body has to be application/json")
		return false
	}
	deadlines := http.NewResponseController(w)
	_ = deadlines.SetReadDeadline(time.Now().Add(bodyTime)) // a recorder of tests has none
	defer func() { _ = deadlines.SetReadDeadline(time.Time{}) }()
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && d.More() {
		err = errors.New("there is more than one value")
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		fail(w, http.StatusRequestEntityTooLarge, "the body is too large")
	case err != nil:
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
