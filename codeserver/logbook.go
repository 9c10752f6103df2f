package codeserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// maxLog is the size at which a version's log is cut: the older half goes.
const maxLog = 16 << 20

// timeLayout begins every line of a log; it has a fixed width.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// logbook is the log of one version: a file of lines, each with its time.
type logbook struct {
	path, version string
	mu            sync.Mutex
	file          *os.File
	size          int64
	lost          bool
	last          []string // the last lines of this run
	grown         chan struct{}
}

// lastLines is how many lines an error quotes.
const lastLines = 40

func (s *Server) logPath(l *location, v *version) string {
	return filepath.Join(s.opts.State, "logs", l.name+"-"+v.name[:16]+".log")
}

func openLogbook(path, version string) (*logbook, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &logbook{path: path, version: version, file: f, size: st.Size(), grown: make(chan struct{})}, nil
}

// write appends a line. A log that cannot be written does not stop the version that writes it.
func (b *logbook) write(line []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := strings.ToValidUTF8(string(line), "�")
	b.last = append(b.last, text)
	if len(b.last) > lastLines {
		b.last = b.last[len(b.last)-lastLines:]
	}
	if b.file == nil {
		return
	}
	n, err := fmt.Fprintf(b.file, "%s %s\n", time.Now().UTC().Format(timeLayout), text)
	b.size += int64(n)
	b.lost = b.lost || err != nil
	if b.size > maxLog {
		b.cut()
	}
	close(b.grown)
	b.grown = make(chan struct{})
}

// cut drops the older half of the file.
func (b *logbook) cut() {
	content, err := os.ReadFile(b.path)
	if err != nil {
		return
	}
	half := content[len(content)/2:]
	if i := bytes.IndexByte(half, '\n'); i >= 0 {
		half = half[i+1:]
	}
	if replaceFile(b.path, half) != nil {
		return
	}
	f, err := os.OpenFile(b.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	b.file.Close()
	b.file, b.size = f, int64(len(half))
}

// lastWords returns the end of the log for an error message, "" if nothing was said.
func (b *logbook) lastWords() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.last) == 0 {
		return "; it wrote nothing"
	}
	return "; the last lines of its log:\n" + strings.Join(b.last, "\n")
}

func (b *logbook) close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		b.file.Close()
		b.file = nil
		close(b.grown)
		b.grown = nil
	}
}

// logLine is one line of a log.
type logLine struct {
	at   time.Time
	text string
}

func parseLine(s string) logLine {
	if len(s) > len(timeLayout) {
		if t, err := time.Parse(timeLayout, s[:len(timeLayout)]); err == nil {
			return logLine{t, s[len(timeLayout)+1:]}
		}
	}
	return logLine{text: s}
}

// readLog sends the last lines of a log file (all if tail is 0), and with book, which may be nil, those that come.
func readLog(ctx context.Context, path string, book *logbook, tail int, follow bool, send func(logLine) error) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var waiting []logLine
	for first := true; ; first = false {
		grown := book.growth()
		lines, err := readNew(f)
		if err != nil {
			return err
		}
		if waiting = lines; first && tail > 0 && len(lines) > tail {
			waiting = lines[len(lines)-tail:]
		}
		for _, l := range waiting {
			if err := send(l); err != nil {
				return err
			}
		}
		if !follow || grown == nil {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// growth returns a channel that is closed when more has been written, nil when nothing more will be.
func (b *logbook) growth() <-chan struct{} {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.grown
}

// readNew reads the complete lines from where the file stands.
func readNew(f *os.File) ([]logLine, error) {
	start, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	var lines []logLine
	r := bufio.NewReader(f)
	for {
		s, err := r.ReadString('\n')
		if err != nil {
			_, serr := f.Seek(start, io.SeekStart)
			if err == io.EOF {
				err = nil
			}
			return lines, errors.Join(err, serr)
		}
		start += int64(len(s))
		lines = append(lines, parseLine(strings.TrimSuffix(s, "\n")))
	}
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
