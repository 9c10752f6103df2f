package examples

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPackages deploys a project with real packages three times: the first version starts by itself, the others are
// forked. All see the same of their processes, get the same results from each package, and can do the same; no two share a
// random number. With PEXPRESS_SOAK (make test-packages) there are twelve packages, without it those of the Dagster example.
func TestPackages(t *testing.T) {
	clients(t) // the wheels come from the index
	h := newHost(t, nil)
	require.NoError(t, os.CopyFS(h.project, os.DirFS("testdata/packages")))
	want := []string{"dagster", "grpc", "numpy", "pandas", "pydantic"}
	if os.Getenv("PEXPRESS_SOAK") == "" {
		b, err := os.ReadFile("dagster-quickstart/requirements.txt")
		require.NoError(t, err)
		h.write("requirements.txt", string(b))
	} else {
		want = append(want, "celery", "django", "duckdb", "fastapi", "pyarrow", "sklearn", "sqlalchemy")
	}
	h.run("lock", "requirements.txt")
	h.start()

	cold := h.reports("one", "start")
	warm := h.reports("two", "fork")
	again := h.reports("three", "fork")
	h.stop()

	for _, name := range want {
		require.Contains(t, cold.packages, name)
		require.NotContains(t, string(cold.packages[name]), "Error", "%s", name)
	}
	for _, other := range []*reports{warm, again} {
		same(t, cold.packages, other.packages)
		same(t, cold.behaviour, other.behaviour)
		same(t, cold.before, other.before)
		for _, name := range []string{"fds", "inheritable"} { // joblib's and gRPC's come and go
			delete(cold.after, name)
			delete(other.after, name)
		}
		same(t, cold.after, other.after)
		require.Equal(t, slices.Sorted(maps.Keys(cold.random)), slices.Sorted(maps.Keys(other.random)))
		require.Equal(t, cold.log, other.log, "no warning of a fork, and no other")
		require.Equal(t, cold.exit(h), other.exit(h))
	}
	for name, number := range cold.random {
		require.NotEqual(t, string(number), string(warm.random[name]), "%s", name)
		require.NotEqual(t, string(warm.random[name]), string(again.random[name]), "%s", name)
	}
	t.Logf("%d packages, %d facts of a process, twice, %d random numbers: the same cold and forked, and no number twice",
		len(want), len(cold.before), len(cold.random))
}

// reports is what a version says of itself.
type reports struct {
	version                                    string
	before, packages, behaviour, random, after map[string]json.RawMessage
	log                                        []string
}

// reports deploys a version, which must come up as the stage says, and returns what it says of itself.
func (h *host) reports(version, stage string) *reports {
	h.write("app/version.py", "VERSION = \""+version+"\"\n")
	events := h.events("deploy", "--ready-timeout", "10m") // the first one writes the bytecode of all that it imports
	address := find(events, "deployed", "", "")["address"].(string)
	var stages []string
	for _, e := range events {
		if e["event"] == "stage" {
			stages = append(stages, e["stage"].(string))
		}
	}
	require.Contains(h.t, stages, stage, "%s", version)
	r := &reports{version: version}
	h.json(address, "state", &r.before)
	h.json(address, "random", &r.random)
	h.json(address, "behaviour", &r.behaviour) // gRPC bears no fork once it is used
	h.json(address, "packages", &r.packages)
	h.json(address, "state", &r.after)
	for _, line := range strings.Split(h.run("logs", "packages").stdout, "\n") {
		if goaway.MatchString(line) {
			continue
		}
		r.log = append(r.log, unnumbered.ReplaceAllString(line, "N"))
	}
	return r
}

// goaway is what gRPC's core logs of a client whose server stops first: its channel closes behind the call that closes it.
var goaway = regexp.MustCompile(`http2_transport\.cc.*Got goaway.*Cancelling all calls`)

// unnumbered are what differs from one log to another: names of files, times, addresses and ids.
var unnumbered = regexp.MustCompile(`tmp[a-z0-9_]{8}|[0-9a-f-]{8,}|[0-9.:]+m?s?`)

func (h *host) json(address, path string, to any) {
	body := h.get(address, "/"+path)
	require.NoError(h.t, json.Unmarshal([]byte(body), to), "%s", body)
}

// exit is what the version has written when it ended.
func (r *reports) exit(h *host) string {
	logs, err := filepath.Glob(filepath.Join(h.dir, "state/logs/*.log"))
	require.NoError(h.t, err)
	for _, path := range logs {
		b, err := os.ReadFile(path)
		require.NoError(h.t, err)
		if _, said, ok := strings.Cut(string(b), "version "+r.version+" ends: "); ok {
			return said
		}
	}
	require.Fail(h.t, "it has not said that it ends", "%s: %q", r.version, logs)
	return ""
}

// same compares fact by fact, so that a difference has a name.
func same(t *testing.T, a, b map[string]json.RawMessage) {
	t.Helper()
	require.Equal(t, slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b)))
	for name := range a {
		if string(a[name]) != string(b[name]) {
			t.Errorf("%s\n  cold %s\n  warm %s", name, a[name], b[name])
		}
	}
}
