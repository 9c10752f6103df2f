package examples

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLogsFollowEnds: who follows a log is told that a deploy has replaced its version, and what serves now.
func TestLogsFollowEnds(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	_, events := h.deploy()
	one := find(events, "deployed", "", "")["version"].(string)[:12]
	text, events1 := h.begin("logs", "-f", "web"), h.begin("logs", "-f", "web", "--output", "json")
	time.Sleep(500 * time.Millisecond) // both follow
	h.write("web/word.py", "WORD = \"two\"\n")
	_, events = h.deploy()
	two := find(events, "deployed", "", "")["version"].(string)
	r := text.end()
	require.Zero(t, r.code)
	require.Contains(t, r.stdout, "serving one")
	require.Equal(t, one+" has ended; "+two[:12]+" serves web now: 'pexpress logs -f web' follows it\n", r.stderr)
	r = events1.end()
	require.Empty(t, r.stderr)
	require.Contains(t, r.stdout, `{"event":"log-ended","location":"web","serving":"`+two+`","version":"`+one)
	require.Empty(t, h.run("logs", "web").stderr, "it is over when all is told")

	// Colours are for a terminal that the version has not.
	h.write("web/word.py", "WORD = \"three\"\nprint('\\x1b[1;32mgreen\\x1b[0m \\x1b[2J')\n")
	h.deploy()
	require.Contains(t, h.run("logs", "web").stdout, ` green \x1b[2J`)
	require.Contains(t, h.run("logs", "web", "--output", "json").stdout, `\u001b[1;32mgreen`)
}
