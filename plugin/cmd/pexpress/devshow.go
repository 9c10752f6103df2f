package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// A display shows how the locations of 'pexpress dev' are: on a terminal a line each that is rewritten, with what happens
// in between above them; elsewhere a line for each thing that happens. With JSON output events say it all.
type display struct {
	ui    *ui
	width func() int // of the terminal; nil if there is none

	mu    sync.Mutex
	order []string
	lines map[string]string
	// settled are the lines of the last outcomes; lines may say what a location is at.
	settled map[string]string
	shown   int // lines of the block that is on the screen
	said    map[string]bool
	at      string // location that is being deployed
}

func newDisplay(u *ui) *display {
	d := &display{ui: u, lines: map[string]string{}, settled: map[string]string{}, said: map[string]bool{}}
	if f, ok := u.out.(*os.File); ok && !u.json && term.IsTerminal(int(f.Fd())) {
		d.width = func() int {
			w, _, err := term.GetSize(int(f.Fd()))
			if err != nil || w < 20 {
				return 80
			}
			return w
		}
	}
	return d
}

// quiet returns the ui for the steps of a build: in text they are shown in passing, and each warning once.
func (d *display) quiet() *ui {
	if d.ui.json {
		return d.ui
	}
	return &ui{out: lineWriter(d.step), err: lineWriter(d.warning)}
}

// lineWriter is a function as the io.Writer of a ui, which writes whole lines.
type lineWriter func(line string)

func (f lineWriter) Write(p []byte) (int, error) {
	f(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

var _ io.Writer = lineWriter(nil)

// begin says which location the next steps are of.
func (d *display) begin(location string) {
	d.mu.Lock()
	d.at = location
	d.mu.Unlock()
	d.step("…")
}

// step shows, on a terminal, what the location that is being deployed is at.
func (d *display) step(text string) {
	if d.width == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	text, _, _ = strings.Cut(text, "\n")
	d.set(d.at, text)
	d.draw("")
}

// warning shows what the user should know, once.
func (d *display) warning(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.said[text] {
		return
	}
	d.said[text] = true
	if d.width == nil {
		fmt.Fprintln(d.ui.err, text)
		return
	}
	d.draw(text)
}

// say shows something that is of no one location.
func (d *display) say(name string, v map[string]any, text string, args ...any) {
	if d.ui.json {
		d.ui.event(name, v, "")
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draw(printable(fmt.Sprintf(text, args...)))
}

// outcome shows how a location is now; more, if there is any, goes above the block and stays.
func (d *display) outcome(location, more, text string, args ...any) {
	if d.ui.json {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	line := printable(time.Now().Format(time.TimeOnly) + "  " + fmt.Sprintf("%-12s  ", location) + fmt.Sprintf(text, args...))
	if more != "" {
		more = indent(printable(more))
	}
	if d.width == nil {
		fmt.Fprintln(d.ui.out, strings.TrimSuffix(line+"\n"+more, "\n"))
		return
	}
	if more != "" {
		d.draw(line + "\n" + more)
	}
	d.settled[location] = line
	d.setLine(location, line)
	d.draw("")
}

func (d *display) set(location, text string) {
	d.setLine(location, printable(time.Now().Format(time.TimeOnly)+"  "+fmt.Sprintf("%-12s  ", location)+text))
}

func (d *display) setLine(location, line string) {
	if _, ok := d.lines[location]; !ok {
		d.order = append(d.order, location)
	}
	d.lines[location] = line
}

// draw rewrites the block, below the text if there is any.
func (d *display) draw(above string) {
	if d.width == nil {
		if above != "" {
			fmt.Fprintln(d.ui.out, above)
		}
		return
	}
	var b strings.Builder
	if d.shown > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", d.shown) // to the block's first line, and nothing below it
	}
	if above != "" {
		b.WriteString(above + "\n")
	}
	width := d.width() - 1
	for _, name := range d.order {
		line := []rune(d.lines[name])
		if len(line) > width { // one that wraps would be two to go back over
			line = append(line[:width-1], '…')
		}
		b.WriteString(string(line) + "\n")
	}
	d.shown = len(d.order)
	_, _ = io.WriteString(d.ui.out, b.String())
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}
