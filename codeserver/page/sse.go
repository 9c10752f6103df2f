package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// writeTime is how long a browser may take to accept an event. One that takes longer is dropped: what it has not taken
// is not kept for it.
const writeTime = 10 * time.Second

// events is an answer that is a stream of server-sent events.
type events struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
}

// begin begins such an answer.
func (p *Page) begin(w http.ResponseWriter) *events {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // a proxy in between is to pass events on at once
	w.WriteHeader(http.StatusOK)
	e := &events{w, http.NewResponseController(w), p.patience}
	_ = e.control.Flush()
	return e
}

// send sends one event.
func (e *events) send(kind string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return e.write(kind, b)
}

// write sends one event whose data is JSON, which has no line break.
func (e *events) write(kind string, data []byte) error {
	_ = e.control.SetWriteDeadline(time.Now().Add(e.patience)) // a recorder of tests has none
	if _, err := fmt.Fprintf(e.w, "event: %s\ndata: %s\n\n", kind, data); err != nil {
		return err
	}
	return e.control.Flush()
}
