package examples

import (
	"slices"
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
		for _, stage := range []string{"plan", "source.pex", "switch"} {
			require.True(t, slices.ContainsFunc(events, func(e map[string]any) bool {
				return e["location"] == name && (e["stage"] == stage || e["output"] == stage)
			}), "%s says of which location it is: %v", stage, events)
		}
		addresses = append(addresses, d["address"].(string))
	}
	h.write("web/word.py", "WORD = \"one\" # again\n")
	require.Regexp(t, `(?m)^describe .*\ncodeserver .*\n(  .*\n)+first answer `, h.run("deploy", "--timings").stdout)
	require.Regexp(t, `(?m)^source.pex .* cache hit  other$`, h.run("build").stdout)
	require.Regexp(t, `(?m)^source.pex .* cache hit$`, h.run("build", "web").stdout)
	h.write("web/word.py", "WORD = \"two\"\n")
	h.write("other/__main__.py", "raise RuntimeError(\"no good\")\n")
	r, err := h.try("deploy", "web", "other", "--ready-timeout", "20s")
	require.Error(t, err)
	require.Equal(t, 5, r.code, r.stderr)
	require.Contains(t, r.stderr, "location other: ")
	require.Regexp(t, `\nweb: [0-9a-f]{12} goes on serving at `+addresses[0]+`; other: [0-9a-f]{12} goes on serving at `+addresses[1]+`\n$`, r.stderr)
	for _, a := range addresses {
		require.Equal(t, "one", h.get(a, "/"))
	}
	for _, args := range [][]string{{"--canary", "100"}, {"web", "other", "--canary", "10"}, {"web", "--canary", "10", "--canary-for", "0s"}} {
		r, err := h.try(append([]string{"deploy"}, args...)...)
		require.Error(t, err)
		require.Equal(t, 2, r.code, r.stderr)
	}
	events = h.events("deploy", "web", "--canary", "10", "--canary-for", "200ms")
	require.Equal(t, "too few answers to judge it by: 0 of 20", find(events, "stage", "stage", "canary")["note"])
	require.Equal(t, "two", h.get(addresses[0], "/"))
	require.Equal(t, "one", h.get(addresses[1], "/"))
}
