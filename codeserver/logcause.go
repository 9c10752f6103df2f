package codeserver

import "strings"

// What Python writes between the errors of a chain, the first of which is what the others come from (PEP 3134).
const (
	traceback    = "Traceback (most recent call last):"
	directCause  = "The above exception was the direct cause of the following exception:"
	whileHandled = "During handling of the above exception, another exception occurred:"
)

const (
	// causeLines is how much of the end of the first error's traceback is kept: the line of code is among it.
	causeLines = 12
	// messageLines is how long the last error's message may be; when more follows it is not what a version ended with.
	messageLines = 12
)

// cause is the first error of the chain that a version wrote last: what came of it may be longer than what an error quotes.
type cause struct {
	lines   []string
	end     int  // how many lines there were when it ended
	direct  bool // the next error was raised from it
	chained bool // nothing was written since the line between two errors
	after   int  // lines since the frames of the last error
}

// note takes a line, before which there were count, the last of them in last.
func (c *cause) note(line string, last []string, count int) {
	switch text := strings.TrimSpace(line); {
	case text == "":
	case text == directCause || text == whileHandled:
		direct := text == directCause
		c.chained = true
		if c.lines != nil && (c.direct || !direct) {
			return
		}
		for len(last) > 0 && strings.TrimSpace(last[len(last)-1]) == "" {
			last, count = last[:len(last)-1], count-1
		}
		c.lines, c.end, c.direct = append([]string{}, last[max(0, len(last)-causeLines):]...), count, direct
	case strings.HasSuffix(text, traceback): // of a group of errors, too
		if !c.chained {
			*c = cause{}
		}
		c.chained, c.after = false, 0
	default:
		c.chained = false
		if c.after > 0 || !strings.HasPrefix(line, "  ") {
			c.after++
		}
	}
}

// words returns what the error says in one line, "" if what came of it is what there is to say.
func (c *cause) words() string {
	if !c.direct || c.after > messageLines {
		return ""
	}
	message := len(c.lines) // begins after the last frame, and may have several lines
	for message > 0 && !strings.HasPrefix(c.lines[message-1], "  ") {
		message--
	}
	if message == len(c.lines) {
		return ""
	}
	return c.lines[message]
}

// above returns those of its lines that come before a number of lines.
func (c *cause) above(count int) []string {
	if c.after > messageLines {
		return nil
	}
	return c.lines[:max(0, min(len(c.lines), count-(c.end-len(c.lines))))]
}
