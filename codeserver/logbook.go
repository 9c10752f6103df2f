package codeserver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pexpress/pexpress/codeserver/worker"
)

// maxLog is the size at which a version's log is cut: the older half goes.
const maxLog = 16 << 20

// timeLayout begins every line of a log; it has a fixed width.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// logbook is the log of one version: a file of lines, each with its time. A version that has two processes, of which one takes
// the other's place, has two books on one file.
type logbook struct {
	path     string
	location string
	version  string
	limit    int64
	mu       sync.Mutex
	file     *os.File
	size     int64
	cutOff   int64         // bytes that have gone since the book was opened
	last     []string      // the last lines of this run
	count    int           // of all lines of this run
	cause    cause         // of the error that is among them
	grown    chan struct{} // closed when something is written; nil when nothing more will be
	lost     *logLost      // what is lost is counted here; may be nil
	cuts     *atomic.Int64 // of all logs, by any book
	followed int64         // how many of them there were when the book last looked whether its file was another's
}

// logLost is what the logs of a location's versions have lost.
type logLost struct {
	lines atomic.Int64 // that could not be written
	bytes atomic.Int64 // that were cut off, being old
}

func (l *logLost) add(lines, bytes int64) {
	if l != nil {
		l.lines.Add(lines)
		l.bytes.Add(bytes)
	}
}

func (s *Server) logPath(l *location, v *version) string {
	return filepath.Join(s.opts.State, "logs", l.name+"-"+v.name[:16]+".log")
}

// openLog opens the log of a version for a process of it.
func (s *Server) openLog(l *location, v *version) (*logbook, error) {
	b, err := openLogbook(s.logPath(l, v), l.name, v.name, &s.cuts)
	if err != nil {
		return nil, err
	}
	b.lost = &l.lost
	return b, nil
}

func openLogbook(path, location, version string, cuts *atomic.Int64) (*logbook, error) {
	followed := cuts.Load()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &logbook{
		path: path, location: location, version: version, limit: maxLog, file: f, size: st.Size(), grown: make(chan struct{}),
		cuts: cuts, followed: followed,
	}, nil
}

// write appends a line. A log that cannot be written does not stop the version that writes it.
func (b *logbook) write(line []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := strings.ToValidUTF8(string(line), "�")
	b.remember(text)
	if b.file == nil {
		return
	}
	b.follow()
	n, err := fmt.Fprintf(b.file, "%s %s\n", time.Now().UTC().Format(timeLayout), text)
	if err != nil {
		b.lost.add(1, 0)
	}
	b.size += int64(n)
	if b.size > b.limit {
		b.cut()
	}
	close(b.grown)
	b.grown = make(chan struct{})
}

// follow has the book go on in the file that another one has put in the place of this one's, by cutting it. To look takes as long as
// to write a line: it is done when there was a cut, of whichever log.
func (b *logbook) follow() {
	cuts := b.cuts.Load()
	if cuts == b.followed {
		return
	}
	now, err := os.Stat(b.path)
	if err != nil {
		return
	}
	was, err := b.file.Stat()
	if err != nil {
		return
	}
	if os.SameFile(was, now) {
		b.followed = cuts
		return
	}
	f, err := os.OpenFile(b.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return
	}
	_ = b.file.Close()
	b.cutOff += max(0, was.Size()-now.Size())
	b.file, b.size, b.followed = f, now.Size(), cuts
}

// An error quotes this much of the log: it travels in the header of a gRPC answer, which some clients cap at 8 KiB.
const (
	lastLines = 40
	lastLine  = 500
	lastBytes = 6000 // in the header
)

func (b *logbook) remember(text string) {
	if len(text) > lastLine {
		text = strings.ToValidUTF8(text[:lastLine], "") + " …"
	}
	b.cause.note(text, b.last, b.count)
	b.count++
	b.last = append(b.last, text)
	if len(b.last) > lastLines {
		b.last = append(b.last[:0], b.last[1:]...)
	}
}

// begin says that what is written from now on is of another process.
func (b *logbook) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cause = cause{}
}

// lastWords returns the end of the log for an error message. Where there is room for one line, as in a table, the message
// is cut after its first, which has what the version has written last, or what that came from.
func (b *logbook) lastWords() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	word := ""
	for _, line := range b.last {
		frame := strings.Trim(line, "+-| ") == "" // of a group of errors
		if line = strings.TrimSpace(line); !frame && !strings.HasPrefix(line, worker.OwnLine) {
			word = line
		}
	}
	if word == "" {
		return "; it wrote nothing"
	}
	says := "it wrote last: " + word
	if word := b.cause.words(); word != "" {
		says = "the cause that it wrote: " + word
	}
	return fmt.Sprintf("; %s\nthe last lines of its log, of which `pexpress logs %s --version %.12s` shows all:\n%s",
		says, b.location, b.version, strings.Join(b.quote(lastBytes-inHeader(says)), "\n"))
}

// quote returns as many of the last lines as there is room for, below those of their cause if that is farther up.
func (b *logbook) quote(room int) []string {
	lines := fitting(b.last, room)
	if len(b.cause.above(b.count-len(lines))) == 0 {
		return lines
	}
	c := b.cause
	c.lines = fitting(c.lines, room/3)
	for _, l := range c.lines {
		room -= inHeader(l + "\n")
	}
	lines = fitting(b.last, room)
	if above := c.above(b.count - len(lines)); len(above) > 0 {
		lines = slices.Concat(above, []string{"…"}, lines)
	}
	return lines
}

// fitting returns the last of the lines, as many as there is room for.
func fitting(lines []string, room int) []string {
	first := len(lines)
	for first > 0 && room > inHeader(lines[first-1]+"\n") {
		first--
		room -= inHeader(lines[first] + "\n")
	}
	return lines[first:]
}

// inHeader is how many bytes a text takes in the header of a gRPC answer, where all but printable ASCII is percent-encoded.
func inHeader(s string) int {
	n := len(s)
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '%' {
			n += 2
		}
	}
	return n
}

// cut drops the older half of the file. When even that cannot be done, as on a full disk, all of it goes: the log of a
// version that writes without end must not be what fills the disk.
func (b *logbook) cut() {
	if b.keepHalf() == nil {
		return
	}
	_ = b.file.Truncate(0)
	b.cutOff += b.size
	b.lost.add(0, b.size)
	b.size = 0
}

func (b *logbook) keepHalf() error {
	from, err := os.Open(b.path)
	if err != nil {
		return err
	}
	defer from.Close()
	start, err := from.Seek(b.size/2, io.SeekStart)
	if err != nil {
		return err
	}
	r := bufio.NewReader(from)
	rest, err := r.ReadSlice('\n')
	for errors.Is(err, bufio.ErrBufferFull) {
		start += int64(len(rest))
		rest, err = r.ReadSlice('\n')
	}
	start += int64(len(rest))
	if err != nil {
		return err
	}
	to, err := os.CreateTemp(filepath.Dir(b.path), ".cut*")
	if err != nil {
		return err
	}
	n, err := io.Copy(to, r)
	err = errors.Join(err, to.Close())
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(to.Name(), os.O_WRONLY|os.O_APPEND, 0)
	}
	if err != nil {
		return errors.Join(err, os.Remove(to.Name()))
	}
	// The last step that can fail: the book is never open on a file that is not at its path.
	if err := os.Rename(to.Name(), b.path); err != nil {
		return errors.Join(err, f.Close(), os.Remove(to.Name()))
	}
	b.cuts.Add(1)
	_ = b.file.Close()
	b.file, b.size = f, n
	b.cutOff += start
	b.lost.add(0, start)
	return nil
}

// isEmpty reports whether nothing was ever written.
func (b *logbook) isEmpty() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size == 0
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
