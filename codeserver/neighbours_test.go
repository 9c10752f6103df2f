package codeserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// misbehaviour is what a location does to the others, besides what greedy does, which answers at once.
const misbehaviour = `
def fills():
    try:
        with open("/tmp/full", "wb") as f:
            while True:
                f.write(b"x" * (1 << 16))
    except OSError as e:
        return e.strerror
def floods():
    for _ in range(200):
        os.write(1, b"x" * 99999 + b"\n")
    return "floods"
ACTIONS.update(fills=fills, floods=floods)
`

// TestNeighbours has three locations that were forked from one process, with users of their own. One exceeds what it may have
// in each way, and the others neither end nor see it. examples/neighbours_test.go measures what it costs them.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secrets := filepath.Join(dir, "secrets.toml")
	names := []string{"bad", "good", "better"}
	var text []byte
	for _, name := range names {
		text = fmt.Appendf(text, "[location.%s]\nTOKEN = { command = [\"printf\", \"of %s\"] }\n", name, name)
	}
	require.NoError(t, os.WriteFile(secrets, text, 0o600))
	h := newHost(t, withUsers(t), func(o *Options) { o.Secrets = secrets })
	files := greedy("up")
	files["app.py"] = replaceOnce(t, files["app.py"], "class Handler(", misbehaviour+"class Handler(")
	spec := h.spec(files, withSecret, func(s *codeserverpb.VersionSpec) {
		s.Limits = &codeserverpb.Limits{MemoryBytes: 150 << 20, Pids: 40, CpuMillis: 500, OpenFiles: 128, TmpBytes: 2 << 20}
	})
	h.deployTo("first", h.spec(files, func(s *codeserverpb.VersionSpec) { s.Limits = spec.GetLimits() }))
	h.s.zygotes.Wait()
	all := map[string]*codeserverpb.Deployed{}
	for _, name := range names {
		all[name] = h.deployTo(name, spec)
		require.True(t, h.version(name).GetForked(), h.logOf(name))
	}
	bad := all["bad"]
	others := func() {
		t.Helper()
		for _, name := range names[1:] {
			require.Equal(t, "of "+name, h.tokenOf(all[name]))
			require.Zero(t, h.version(name).GetUsage().GetRestarts())
		}
	}
	others()
	require.Equal(t, "No space left on device", h.get(bad, "/fills"))
	others()
	require.Equal(t, "floods", h.get(bad, "/floods"))
	h.awaitLog("bad", "more than 1 MiB a second for long: lines are left out")
	others()
	require.Equal(t, "spins", h.get(bad, "/spin"))
	others()
	require.NotEmpty(t, h.get(bad, "/forks"))
	others()
	before := h.version("bad").GetUsage().GetRestarts()
	eventually(t, func() bool {
		if h.version("bad").GetUsage().GetRestarts() > before {
			return true
		}
		// Again: a request in whose thread's place another is, such as one that asks whether the version is well, is dropped.
		ask(bad, "eat")
		return false
	}, "it has ended")
	h.awaitLog("bad", `it exceeded its memory limit of 150 MiB \(peak 1(4\d(\.\d)?|50) MiB\) and was ended`)
	others()
	await(t, bad.GetLocation().GetAddress(), "up")
	require.Equal(t, "of bad", h.tokenOf(bad))
	require.True(t, h.version("bad").GetForked())
	eventually(t, func() bool { return h.version("bad").GetUsage().GetProcesses() <= 2 }, "it, and its keeper")
}

func replaceOnce(t *testing.T, s, from, to string) string {
	before, after, ok := strings.Cut(s, from)
	require.True(t, ok)
	return before + to + after
}

// logOf returns the log of a location's current version.
func (h *host) logOf(location string) string {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	l := h.s.locations[location]
	return readFile(h.t, h.s.logPath(l, l.current))
}
