package main

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// ui writes what a command has to say: text for people, or one JSON object a line with --output json.
type ui struct {
	json     bool
	out, err io.Writer
}

// event reports one thing: text is what a person reads, v what a program does; v must marshal to an object.
func (u *ui) event(name string, v any, text string, args ...any) {
	if u.json {
		fmt.Fprintln(u.out, eventJSON(name, v))
		return
	}
	fmt.Fprintln(u.out, printable(fmt.Sprintf(text, args...)))
}

// fail reports the error that ends the command.
func (u *ui) fail(err error) {
	text := answerOfS3.ReplaceAllString(err.Error(), "")
	if u.json {
		fmt.Fprintln(u.out, eventJSON("error", map[string]any{"message": text, "exit_code": exitCode(err)}))
		return
	}
	fmt.Fprintln(u.err, "pexcache: "+printable(text))
}

// answerOfS3 matches what the AWS SDK puts before what S3 said, and helps nobody at a terminal.
var answerOfS3 = regexp.MustCompile(`(exceeded maximum number of attempts, \d+, )?https response error StatusCode: \d+, RequestID: [^,]*, HostID: [^,]*, (api error |request send failed, )?`)

// eventJSON returns v's JSON object with "event": name as its first member.
func eventJSON(name string, v any) string {
	b, err := json.Marshal(snake(reflect.ValueOf(v)))
	if err != nil || len(b) < 2 || b[0] != '{' {
		b, _ = json.Marshal(map[string]any{"value": fmt.Sprint(v)})
	}
	rest := string(b[1:])
	if rest != "}" {
		rest = "," + rest
	}
	return fmt.Sprintf(`{"event":%q%s`, name, rest)
}

// printable shows control characters as what they are: what a client calls an action must not drive a terminal.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// size returns n bytes in words: 900 B, 12.3 KiB, 4.0 MiB.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, suffixes := float64(n)/1024, []string{"KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for f >= 1024 && i < len(suffixes)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %s", f, suffixes[i])
}

// count returns "1 blob", "3 blobs", "2 entries".
func count[N int | int64](n N, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(noun, "y"))
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
