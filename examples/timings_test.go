package examples

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTimings deploys with --timings: the steps are shown, and add up to the whole.
func TestTimings(t *testing.T) {
	project := webProject("one")
	project["pyproject.toml"] += "warm = false\n" // with the codeserver's stage start
	h := newHost(t, project)
	h.start()
	r, err := h.try("deploy", "--timings")
	require.NoError(t, err, "%s%s", r.stdout, r.stderr)
	_, table, ok := strings.Cut(r.stdout, "from the start of this command to the first answer:\n")
	require.True(t, ok, r.stdout)
	for _, step := range []string{"command", "open", "plan", "build", "  source.pex", "describe", "load source", "environment", "start", "ready", "switch", "between stages", "first answer", "total"} {
		require.Contains(t, "\n"+table, "\n"+step+" ", table)
	}

	h.write("app/word.py", "WORD = 'two'\n")
	r, err = h.try("deploy", "--timings", "--output", "json")
	require.NoError(t, err, "%s%s", r.stdout, r.stderr)
	var shown struct {
		Milliseconds float64
		Stages       []struct {
			Stage        string
			Milliseconds float64
			Within       bool
		}
	}
	for line := range strings.Lines(r.stdout) {
		if strings.HasPrefix(line, `{"event":"timings"`) {
			require.NoError(t, json.Unmarshal([]byte(line), &shown))
		}
	}
	require.NotEmpty(t, shown.Stages, r.stdout)
	sum := 0.0
	for _, s := range shown.Stages {
		if !s.Within {
			sum += s.Milliseconds
		}
	}
	require.InDelta(t, shown.Milliseconds, sum, 0.1, "each is rounded to a thousandth")

	r, err = h.try("deploy", "--timings", "--descriptor", "x")
	require.Error(t, err)
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, "--timings")
}
