package codeserver

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLogIsCut writes more than a log may hold: the older half goes, at the end of a line, and what goes is counted.
func TestLogIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	b, err := openLogbook(path, "web", "version", new(atomic.Int64))
	require.NoError(t, err)
	defer b.close()
	b.limit, b.lost = 16<<10, &logLost{}
	written := int64(0)
	for i := range 2000 {
		line := fmt.Sprintf("line %d", i)
		b.write([]byte(line))
		written += int64(len(timeLayout) + 1 + len(line) + 1)
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.LessOrEqual(t, st.Size(), b.limit)
	}
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	require.Greater(t, int64(len(content)), b.limit/3, "no more than half of it goes at a time")
	for i, line := range lines {
		_, text, _ := strings.Cut(line, " ")
		require.Equal(t, fmt.Sprintf("line %d", 2000-len(lines)+i), text)
	}
	require.Equal(t, written-int64(len(content)), b.lost.bytes.Load())
	require.Zero(t, b.lost.lines.Load())
}

// TestLastWords: the first line of an error says what the version wrote last, or that it wrote nothing.
func TestLastWords(t *testing.T) {
	for said, lines := range map[string][]string{
		"; it wrote nothing": {"", "codeserver: it is started once more", "  "},
		"; it wrote last: RuntimeError: no good\nthe last lines of its log, of which `pexpress logs web --version version` shows all:\nTraceback:\n  RuntimeError: no good\n\ncodeserver: it ended": {
			"Traceback:", "  RuntimeError: no good", "", "codeserver: it ended",
		},
	} {
		b, err := openLogbook(filepath.Join(t.TempDir(), "log"), "web", "version", new(atomic.Int64))
		require.NoError(t, err)
		for _, line := range lines {
			b.write([]byte(line))
		}
		require.Equal(t, said, b.lastWords())
		b.close()
	}
}

// TestLastWordsFit: what an error quotes of a log fits into the header of an answer, in which all but ASCII takes three times the room.
func TestLastWordsFit(t *testing.T) {
	b, err := openLogbook(filepath.Join(t.TempDir(), "log"), "web", "version", new(atomic.Int64))
	require.NoError(t, err)
	defer b.close()
	for range 2 * lastLines {
		b.write([]byte(strings.Repeat("設定100%", 20)))
	}
	words := b.lastWords()
	require.Greater(t, strings.Count(words, "\n"), 3)
	require.Less(t, len(url.PathEscape(words)), 8<<10-512)
}

// TestTwoLogs has two processes of a version write to its log: that one cuts it does not end the other's, nor who follows
// that.
func TestTwoLogs(t *testing.T) {
	s, v := &Server{opts: Options{State: t.TempDir()}}, &version{name: strings.Repeat("a", 64)}
	path := s.logPath(&location{name: "web"}, v)
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	books := make([]*logbook, 2)
	for i := range books {
		b, err := s.openLog(&location{name: "web"}, v) // the location may have been removed and deployed again between them
		require.NoError(t, err)
		defer b.close()
		books[i] = b
	}
	const lines = 150
	for i := range lines {
		books[1].write(fmt.Appendf(nil, "line %d of the second", i))
	}
	got, done := make(chan string, 1000), make(chan error, 1)
	r := logReader{path: path, book: books[1], send: func(l logLine) error {
		got <- l.text
		return nil
	}}
	go func() { done <- r.read(t.Context(), 0, true) }()
	for range lines { // who follows is far behind the middle of the file then
		<-got
	}
	books[0].limit = 1 << 10 // of what it has written itself
	for i := 0; books[0].cutOff == 0; i++ {
		books[0].write(fmt.Appendf(nil, "line %d of the first", i))
	}
	books[0].write([]byte("line 100 of the first"))
	books[1].write([]byte("last of the second"))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(content), "line 100 of the first\n")
	require.True(t, strings.HasSuffix(string(content), "last of the second\n"))
	books[1].close()
	require.NoError(t, <-done)
	close(got)
	last := ""
	for text := range got {
		require.Regexp(t, `^(line \d+ of the (first|second)|last of the second)$`, text, "no part of a line is sent")
		last = text
	}
	require.Equal(t, "last of the second", last)
}
