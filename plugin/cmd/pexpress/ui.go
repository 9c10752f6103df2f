package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"
)

// ui writes what a command has to say: text for people, or one JSON object a line with --output json. Results go to
// out; warnings, errors and progress go to err.
type ui struct {
	json     bool
	terminal bool
	out, err io.Writer
	mu       sync.Mutex
	shown    bool // a line that passes is on the terminal
}

func newUI(asJSON bool, stdout, stderr io.Writer) *ui {
	f, ok := stderr.(*os.File)
	return &ui{json: asJSON, terminal: ok && term.IsTerminal(int(f.Fd())), out: stdout, err: stderr}
}

// event reports one thing: text is what a person reads, v what a program does. With JSON output v is written with its
// "event" key set to name; v must marshal to an object.
func (u *ui) event(name string, v any, text string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	if !u.json {
		if text != "" {
			fmt.Fprintln(u.out, printable(fmt.Sprintf(text, args...)))
		}
		return
	}
	fmt.Fprintln(u.out, eventJSON(name, v))
}

// eventJSON returns v's JSON object with "event": name as its first member.
func eventJSON(name string, v any) string {
	b, err := json.Marshal(v)
	if err != nil || len(b) < 2 || b[0] != '{' {
		b, _ = json.Marshal(map[string]any{"value": fmt.Sprint(v)})
	}
	rest := string(b[1:])
	if rest != "}" {
		rest = "," + rest
	}
	return fmt.Sprintf(`{"event":%q%s`, name, rest)
}

// warn reports something that the user should know and that stops nothing.
func (u *ui) warn(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	if u.json {
		fmt.Fprintln(u.out, eventJSON("warning", map[string]string{"message": text}))
		return
	}
	fmt.Fprintln(u.err, "warning: "+printable(text))
}

// note reports what is about a command's results and none of them: text on standard error, v as an event.
func (u *ui) note(name string, v any, text string) {
	if u.json {
		u.event(name, v, "")
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	fmt.Fprintln(u.err, printable(text))
}

// status shows on the terminal what goes on, in a line that makes place for the next thing that is said; "" takes it away.
func (u *ui) status(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	if text != "" {
		fmt.Fprint(u.err, printable(text))
		u.shown = true
	}
}

// clear takes the line away that status has shown. u.mu is held.
func (u *ui) clear() {
	if u.shown {
		fmt.Fprint(u.err, "\r\x1b[K")
		u.shown = false
	}
}

// printable shows control characters as what they are: what a file is called, or a deployed program writes, must not
// drive the reader's terminal.
func printable(s string) string {
	clean := func(r rune) bool { return r == '\n' || r == '\t' || unicode.IsPrint(r) }
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if clean(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// oneLine is printable for a name that is part of a line, such as a file's: its line breaks must not look like the end of that.
func oneLine(s string) string {
	return printable(strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(s))
}

// milliseconds is a duration that marshals as a number of milliseconds.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// size returns n bytes in words: 900 B, 12.3 KiB, 4.0 MiB.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, suffixes := float64(n)/unit, []string{"KiB", "MiB", "GiB", "TiB"}
	i := 0
	for f >= unit && i < len(suffixes)-1 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.1f %s", f, suffixes[i])
}

// took returns a duration as people read it.
func took(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", milliseconds(d))
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// count returns "1 file", "3 files".
func count[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "y") {
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(noun, "y"))
	}
	if strings.HasSuffix(noun, "s") {
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
