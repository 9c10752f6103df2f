package examples

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSeveralLocations deploys two locations with one command: both switch, or neither.
func TestSeveralLocations(t *testing.T) {
	p := webProject("one")
	p["pyproject.toml"] += "[tool.pexpress.location.other]\npreset = \"module\"\nmodule = \"other\"\n"
	p["other/__init__.py"], p["other/__main__.py"] = "", "import runpy\nrunpy.run_module(\"web\", run_name=\"__main__\")\n"
	h := newHost(t, p)
	h.start()
	events := h.events("deploy", "web", "other")
	var addresses []string
	for _, name := range []string{"web", "other"} {
		d := find(events, "deployed", "location", name)
		require.NotNil(t, d, name)
		require.NotNil(t, find(events, "stage", "location", name), "stages say of which location they are")
		addresses = append(addresses, d["address"].(string))
	}
	h.write("web/word.py", "WORD = \"two\"\n")
	h.write("other/__main__.py", "raise RuntimeError(\"no good\")\n")
	r, err := h.try("deploy", "web", "other", "--ready-timeout", "20s")
	require.Error(t, err)
	require.Equal(t, 5, r.code, r.stderr)
	require.Contains(t, r.stderr, "location other: ")
	for _, a := range addresses {
		require.Equal(t, "one", h.get(a, "/"))
	}
	for _, args := range [][]string{{"--canary", "100"}, {"web", "other", "--canary", "10"}, {"web", "--canary", "10", "--canary-for", "0s"}} {
		r, err := h.try(append([]string{"deploy"}, args...)...)
		require.Error(t, err)
		require.Equal(t, 2, r.code, r.stderr)
	}
	events = h.events("deploy", "web", "--canary", "10", "--canary-for", "200ms")
	require.NotNil(t, find(events, "stage", "stage", "canary"))
	require.Equal(t, "two", h.get(addresses[0], "/"))
	require.Equal(t, "one", h.get(addresses[1], "/"))
}
