package plugin

import (
	"strings"
	"sync"
	"unicode"
)

// tailBytes is how much of a builder's standard error is kept.
const tailBytes = 4 << 10

// tailWriter keeps the end of what is written to it, so that a builder that floods its standard error costs no memory.
type tailWriter struct {
	mu  sync.Mutex
	buf []byte
}

// Write implements io.Writer; it never fails.
func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	if len(p) > tailBytes {
		p = p[len(p)-tailBytes:]
	}
	w.buf = append(w.buf, p...)
	if len(w.buf) > tailBytes {
		w.buf = append(w.buf[:0], w.buf[len(w.buf)-tailBytes:]...)
	}
	return n, nil
}

func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return printable(string(w.buf), tailBytes)
}

// printable returns the end of s, at most limit bytes of it, without what could steer a terminal: builders' words are
// shown to people.
func printable(s string, limit int) string {
	if len(s) > limit {
		s = s[len(s)-limit:]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsGraphic(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "�")))
}
