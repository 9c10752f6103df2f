package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/pexpress/pexpress/plugin/ci"
)

// ciEvent is what of the events of building and deploying is reported.
type ciEvent struct {
	Event        string  `json:"event"`
	Stage        string  `json:"stage"`
	Milliseconds float64 `json:"milliseconds"`
	Bytes        int64   `json:"bytes"`
	FetchedBytes int64   `json:"fetched_bytes"`
	Message      string  `json:"message"`
	Version      string  `json:"version"`
	Address      string  `json:"address"`
	Unchanged    bool    `json:"unchanged"`
}

// listen has the job hear what building and deploying report, until the returned function is called.
func (j *ciJob) listen() (restore func()) {
	before := j.app.ui
	j.app.ui = newUI(true, (*ciListener)(j), before.err)
	return func() { j.app.ui = before }
}

// ciListener is where the ui's lines of JSON go.
type ciListener ciJob

// Write implements io.Writer; the ui writes an event at a time.
func (w *ciListener) Write(line []byte) (int, error) {
	var e ciEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return 0, err
	}
	j, l := (*ciJob)(w), w.location
	switch {
	case e.Event == "warning":
		j.warn(e.Message)
	case l == nil:
	case e.Event == "stage":
		took := time.Duration(e.Milliseconds * float64(time.Millisecond))
		l.Stages = append(l.Stages, ci.Stage{Name: e.Stage, Took: took, Bytes: e.Bytes + e.FetchedBytes})
		l.Fetched += e.FetchedBytes
		j.say("%-14s %9s  %s", e.Stage, fmt.Sprintf("%.1f ms", e.Milliseconds), size(e.Bytes+e.FetchedBytes))
	case e.Event == "deployed":
		l.Version, l.Address = e.Version, e.Address
		if e.Unchanged {
			l.Kind = ci.Unchanged
		}
	}
	return len(line), nil
}

// say prints a line of the job's log.
func (j *ciJob) say(format string, args ...any) {
	fmt.Fprintf(j.out, format+"\n", args...)
}

// warn prints a warning where the system shows it, and keeps it for the summary.
func (j *ciJob) warn(text string) {
	for _, w := range j.report.Warnings {
		if w == text {
			return
		}
	}
	j.report.Warnings = append(j.report.Warnings, text)
	j.show(ci.Annotation{Level: "warning", Title: "pexpress", Message: printable(text)})
}

// annotate prints an error where the system shows it: beside the file that it is about.
func (j *ciJob) annotate(title string, err error) {
	dir, aerr := filepath.Abs(j.app.dir)
	if aerr != nil {
		dir = j.app.dir
	}
	j.show(ci.Annotate(j.run.Workspace, dir, title, printable(err.Error())))
}

func (j *ciJob) show(a ci.Annotation) {
	j.annotations = append(j.annotations, a)
	if j.run.System == ci.GitHub {
		j.say("%s", a.Command())
		return
	}
	place := ""
	if a.File != "" {
		place = fmt.Sprintf("%s:%d: ", a.File, max(1, a.Line))
	}
	j.say("\x1b[1m%s: %s%s\x1b[0m\n%s", a.Level, place, a.Title, ci.Plain(a.Message))
}
