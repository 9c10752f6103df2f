package observe

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// NewLog returns a logger that writes for people if w is a terminal, and one JSON object a line elsewhere.
func NewLog(w io.Writer, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}
