package main

import (
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows a fetch under way: a bar on a terminal. Elsewhere the line that a stage ends with is enough, after one
// that says what is about to take its time.
func (a *app) progress(files int, bytes int64) (add func(n int64), done func()) {
	if !a.ui.terminal || a.ui.json {
		a.ui.event("fetching", map[string]any{"files": files, "bytes": bytes}, "%-14s %9s  %s, %s", "fetching", "",
			count(files, "file"), size(bytes))
		return func(int64) {}, func() {}
	}
	bar := progressbar.NewOptions64(bytes,
		progressbar.OptionSetWriter(a.ui.err), progressbar.OptionSetDescription("fetching "+count(files, "file")),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(50*time.Millisecond),
		progressbar.OptionClearOnFinish(), progressbar.OptionUseIECUnits(true))
	return func(n int64) { _ = bar.Add64(n) }, func() { _ = bar.Finish() }
}
