package examples

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDiff asks what a deploy has changed, also when the cache has dropped what one of the versions was made of.
func TestDiff(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	_, events := h.deploy()
	first := find(events, "deployed", "", "")["version"].(string)
	r, err := h.try("diff")
	require.Error(t, err)
	require.Equal(t, 3, r.code)
	require.Contains(t, r.stderr, "has one version only")

	h.write("web/word.py", "WORD = \"longer\"\n")
	_, events = h.deploy()
	second := find(events, "deployed", "", "")["version"].(string)
	text := h.run("diff").stdout
	require.Regexp(t, "^web: from "+first[:12]+` .* to `+second[:12]+` .*serves\)\nfiles of source.pex:\n`, text)
	require.Contains(t, text, "\n  changed  web/word.py (16 B, +3 B)\n")
	require.NotContains(t, text, "data.txt", "it is as it was")

	d := find(h.events("diff", "web", second[:8], first[:8]), "diff", "location", "web")
	require.Equal(t, []any{second, first}, []any{d["from"], d["to"]})
	require.Empty(t, d["wheels"])
	require.Equal(t, "source", d["trees"].([]any)[0].(map[string]any)["name"])

	h.run("cache", "gc", "--max-size", "0")
	r, err = h.try("diff")
	require.Error(t, err)
	require.Equal(t, 6, r.code)
	require.Contains(t, r.stderr, "does not have all of "+first[:12]+" and "+second[:12]+" of web: compare source: ")
}
