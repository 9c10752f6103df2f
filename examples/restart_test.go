package examples

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestServeRestart has a changed secret reach what a rollback went to, while the checkout holds an edit that nobody has deployed
// and the cache is away. A secret with which it does not come up reaches nobody.
func TestServeRestart(t *testing.T) {
	project := webProject("one")
	project["pyproject.toml"] += "secret-env = [\"GREETING\"]\n"
	say := func(word string) string {
		return "import os\nif os.environ[\"GREETING\"] == \"bad\": raise RuntimeError(\"no such greeting\")\nWORD = os.environ[\"GREETING\"] + \" " + word + "\"\n"
	}
	project["web/word.py"] = say("one")
	h := newHost(t, project)
	secret, config := filepath.Join(h.dir, "greeting"), filepath.Join(h.dir, "secrets.toml")
	greet := func(value string) { require.NoError(t, os.WriteFile(secret, []byte(value), 0o600)) }
	greet("hello")
	require.NoError(t, os.WriteFile(config, []byte("[location.web]\nGREETING = { file = \""+secret+"\" }\n"), 0o600))
	h.serve = []string{"--secrets", config}
	h.start()
	address, events := h.deploy()
	one := find(events, "deployed", "", "")["version"]
	h.write("web/word.py", say("two"))
	h.deploy()
	require.Equal(t, "hello two", h.get(address, "/"))
	h.run("rollback", "web")
	h.write("web/word.py", say("three"))
	require.NoError(t, os.Rename(h.cache(), h.cache()+".away"))
	require.NoError(t, os.WriteFile(h.cache(), nil, 0o644))

	greet("bye")
	elsewhere := t.TempDir() // no project
	stop := hammer(t, address, "hello one", "bye one")
	events = h.events("restart", "-C", elsewhere)
	stop()
	d := find(events, "deployed", "", "")
	require.Equal(t, []any{"web", one, address, false}, []any{d["location"], d["version"], d["address"], d["unchanged"]})
	require.NotNil(t, find(events, "stage", "stage", "ready"))
	require.NotNil(t, find(events, "stage", "stage", "switch"))
	require.Equal(t, "bye one", h.get(address, "/"))

	greet("bad")
	r, err := h.try("restart", "web", "--ready-timeout", "30s")
	require.Error(t, err)
	require.Equal(t, 5, r.code, r.stderr)
	require.Contains(t, r.stderr, "web is served by the process before: the version did not become ready")
	require.Contains(t, r.stderr, "RuntimeError: no such greeting")
	require.Equal(t, "bye one", h.get(address, "/"))
	require.Equal(t, one, find(h.events("status"), "location", "", "")["current"])

	r, err = h.try("restart", "other")
	require.Error(t, err)
	require.Equal(t, 3, r.code, r.stderr)
	require.Contains(t, r.stderr, `no location "other"`)
}
