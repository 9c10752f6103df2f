package examples

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The processes of the example: two locks are selected from, one runtime is taken out of pex, one deps.pex is made (the
// locks have the same wheels), and three sources and three descriptors.
const pantsProcesses = 2 + 1 + 1 + 3 + 3

// TestPantsCached counts the processes that Pants runs, on one host and on another one that shares a pexcache with it.
func TestPantsCached(t *testing.T) {
	r := newPantsRepo(t)
	p := servePexcache(t)
	one, two := r.host(remoteCache(p)...), r.host(remoteCache(p)...)

	counts := one.run("package", "services::")
	ran(t, counts, pantsProcesses, "cold")
	require.Equal(t, pantsProcesses, counts["remote_cache_write_successes"], "cold")
	deps, source := one.roots("services.tally/deploy")

	counts = one.run("package", "services::")
	ran(t, counts, 0, "nothing changed")
	require.Equal(t, pantsProcesses, counts["local_cache_requests_cached"], "nothing changed")

	counts = two.run("package", "services::")
	ran(t, counts, 0, "another host")
	require.Equal(t, pantsProcesses, counts["remote_cache_requests_cached"], "another host")
	againDeps, againSource := two.roots("services.tally/deploy")
	require.Equal(t, deps, againDeps)
	require.Equal(t, source, againSource)

	r.edit("services/tally/tally/app.py", "visitor", "guest")
	counts = one.run("package", "services::")
	ran(t, counts, 2, "one source edited: its source.pex and its descriptor")
	againDeps, edited := one.roots("services.tally/deploy")
	require.Equal(t, deps, againDeps)
	require.NotEqual(t, source, edited)
	counts = two.run("package", "services::")
	ran(t, counts, 0, "one source edited, another host")
	require.Equal(t, 2, counts["remote_cache_requests_cached"], "one source edited, another host")

	bumped := regexp.MustCompile(`(?m)^idna==.*\n(    .*\n)*`).ReplaceAllString(r.read("3rdparty/requirements.txt"), "idna==3.10\n")
	r.write("3rdparty/requirements.txt", bumped)
	r.lock("3rdparty")
	counts = one.run("package", "services::")
	ran(t, counts, 4, "one wheel bumped: selection, deps.pex and the two descriptors of its services")
	againDeps, againSource = one.roots("services.tally/deploy")
	require.NotEqual(t, deps, againDeps)
	require.Equal(t, edited, againSource)
	counts = two.run("package", "services::")
	ran(t, counts, 0, "one wheel bumped, another host")
	require.Equal(t, 4, counts["remote_cache_requests_cached"], "one wheel bumped, another host")
}

// ran checks how many processes Pants ran itself.
func ran(t *testing.T, counts map[string]int, want int, when string) {
	t.Helper()
	t.Logf("%s: ran %d, local hits %d, remote hits %d", when, counts["local_execution_requests"],
		counts["local_cache_requests_cached"], counts["remote_cache_requests_cached"])
	require.Equal(t, want, counts["local_execution_requests"], "%s: %v", when, counts)
}
