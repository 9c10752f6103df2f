package codeserver

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// raised returns what Python writes of an error that was raised below a number of frames.
func raised(frames int, file, says string) (lines []string) {
	lines = append(lines, traceback)
	for i := range frames {
		lines = append(lines, fmt.Sprintf("  File \"/env/%s.py\", line %d, in f%d", file, i, i), fmt.Sprintf("    call(%d)", i))
	}
	return append(lines, says)
}

// TestCause: an error that is raised from another one is told by that, however long what came of it is.
func TestCause(t *testing.T) {
	first, second := raised(30, "app", "NameError: name 'nope' is not defined"), raised(40, "lib", "LoadError: could not load")
	group := []string{
		"  + Exception Group Traceback (most recent call last):", `  |   File "/env/g.py", line 1, in g`, "  | ExceptionGroup: two (1 sub-exception)",
		"  +-+---------------- 1 ----------------", "    | ValueError: in it", "    +------------------------------------",
	}
	between := func(text string) []string { return []string{"", text, ""} }
	join := func(all ...[]string) (lines []string) {
		for _, l := range all {
			lines = append(lines, l...)
		}
		return lines
	}
	for name, c := range map[string]struct {
		lines        []string
		says, quoted string
		not          string
	}{
		"direct":          {join(first, between(directCause), second), "the cause that it wrote: NameError: name 'nope' is not defined", `/env/app.py", line 29`, `/env/app.py", line 2,`},
		"short":           {join(raised(1, "app", "A"), between(directCause), raised(1, "lib", "B")), "the cause that it wrote: A", `/env/app.py", line 0`, "…"},
		"handled":         {join(first, between(whileHandled), second), "it wrote last: LoadError: could not load", `/env/app.py", line 29`, `/env/app.py", line 2,`},
		"handled, direct": {join(raised(2, "tried", "KeyError: 'a'"), between(whileHandled), first, between(directCause), second), "the cause that it wrote: NameError", `/env/app.py", line 29`, "tried"},
		"direct, twice":   {join(first, between(directCause), second, between(directCause), second), "the cause that it wrote: NameError", `/env/app.py", line 29`, `/env/app.py", line 2,`},
		"another later":   {join(first, between(directCause), second, []string{"started again"}, second), "it wrote last: LoadError", `/env/lib.py", line 39`, "app.py"},
		"a group later":   {join(first, between(directCause), second, []string{"started again"}, group), "it wrote last: | ValueError: in it", "ExceptionGroup: two", "app.py"},
		"from a group":    {join(group, between(directCause), second), "it wrote last: LoadError", "ValueError: in it", `/env/lib.py", line 2,`},
		"long gone":       {join(first, between(directCause), second, slices.Repeat([]string{"INFO: GET / 200"}, 60), []string{"OSError: in use"}), "it wrote last: OSError: in use", "GET", "app.py"},
		"with a note":     {join(first, []string{"see https://example.org"}, between(directCause), second, []string{"module_name=app"}), "the cause that it wrote: NameError", `/env/app.py", line 29`, `/env/app.py", line 2,`},
		"alone":           {second, "it wrote last: LoadError", `/env/lib.py", line 39`, "…"},
		"only the line":   {[]string{directCause, "x"}, "it wrote last: x", directCause, "…"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := openLogbook(filepath.Join(t.TempDir(), "log"), "web", "version", new(atomic.Int64))
			require.NoError(t, err)
			defer b.close()
			for _, l := range c.lines {
				b.write([]byte(l))
			}
			for range 2 { // an error may be told twice
				words := b.lastWords()
				require.Contains(t, words, "; "+c.says)
				require.Contains(t, words, c.quoted)
				require.NotContains(t, words, c.not)
				require.True(t, strings.HasSuffix(words, c.lines[len(c.lines)-1]))
				require.Less(t, inHeader(words), 8<<10-512)
			}
		})
	}
}

// TestCauseFits: lines that are long leave room for one another.
func TestCauseFits(t *testing.T) {
	b, err := openLogbook(filepath.Join(t.TempDir(), "log"), "web", "version", new(atomic.Int64))
	require.NoError(t, err)
	defer b.close()
	long := strings.Repeat("設", 170)
	for _, l := range append(append(raised(20, long, "NameError: "+long), "", directCause, ""), raised(20, long, "last")...) {
		b.write([]byte(l))
	}
	for range 2 { // an error may be told twice
		words := b.lastWords()
		require.Contains(t, words, "; the cause that it wrote: NameError")
		require.True(t, strings.HasSuffix(words, "\nlast"))
		require.Less(t, inHeader(words), 8<<10-512)
	}
	b.begin()
	require.Contains(t, b.lastWords(), "; it wrote last: last", "that was another process")
}
