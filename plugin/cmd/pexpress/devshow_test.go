package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// screen is what a terminal shows that got the bytes: of the control sequences it knows those that display uses.
func screen(t *testing.T, b string) string {
	var lines []string
	for _, part := range strings.Split(b, "\x1b[") {
		if up, rest, ok := strings.Cut(part, "A\r"); ok {
			n := 0
			_, err := fmt.Sscan(up, &n)
			require.NoError(t, err)
			require.LessOrEqual(t, n, len(lines), "nothing above the first line")
			lines, part = lines[:len(lines)-n], rest
		}
		if part = strings.TrimPrefix(part, "J"); part != "" {
			lines = append(lines, strings.Split(strings.TrimSuffix(part, "\n"), "\n")...)
		}
	}
	return strings.Join(lines, "\n")
}

// TestDisplay rewrites a line for each location, and leaves what is to be read above them.
func TestDisplay(t *testing.T) {
	var out bytes.Buffer
	d := newDisplay(newUI(false, &out, &out))
	d.width = func() int { return 60 }
	d.begin("web")
	d.step("plan  3 ms")
	d.outcome("web", "", "serving one")
	d.begin("api")
	d.outcome("api", "Traceback\n  File \x1b[2J", "failed; none serves")
	quiet := d.quiet()
	quiet.warn("mind the gap")
	quiet.warn("mind the gap")
	d.begin("web")
	d.step(strings.Repeat("long ", 40))
	d.unchanged("web")
	got := screen(t, out.String())
	lines := strings.Split(got, "\n")
	require.Len(t, lines, 6, "%s", got)
	require.Regexp(t, `api +failed; none serves$`, lines[0])
	require.Equal(t, []string{"    Traceback", `      File \x1b[2J`, "warning: mind the gap"}, lines[1:4])
	require.Regexp(t, `web +serving one$`, lines[4])
	require.Regexp(t, `api +failed; none serves$`, lines[5])
	for _, l := range strings.Split(out.String(), "\n") {
		require.Less(t, len([]rune(l)), 60+len("\x1b[1A\r\x1b[J"), "no line wraps")
	}
}
