package examples

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const pantsTOML = `[GLOBAL]
pants_version = "2.17.1"
backend_packages = ["pants.backend.python", "pants.backend.shell"]
pantsd = false
watch_filesystem = false
remote_cache_read = true
remote_cache_write = true
remote_store_address = "grpc://%s"

[source]
root_patterns = ["/"]

[python]
interpreter_constraints = ["==3.9.*"]

[pex-cli]
version = "v2.1.137"
url_template = "file://%s"
known_versions = ["v2.1.137|linux_x86_64|%s"]

[anonymous-telemetry]
enabled = false

[stats]
log = true
`

const pantsBUILD = `python_sources()
pex_binary(name="bin", entry_point="main.py")
shell_command(
    name="gen",
    command="head -c 6000000 /dev/zero | tr '\\0' y > big.txt; echo hi > small.txt",
    tools=["head", "tr", "echo"],
    output_files=["big.txt", "small.txt"],
)
archive(name="tar", format="tar.gz", files=[":gen"])
`

// TestCachePants packages on one host, which writes the remote cache, and on a second one, which reads it: what the
// first ran the second does not.
func TestCachePants(t *testing.T) {
	pants, pex := filepath.Join(clients(t), "pants/bin/pants"), filepath.Join(clients(t), "pex-cli.pex")
	content, err := os.ReadFile(pex)
	if os.IsNotExist(err) {
		t.Skip("needs Pants, and that Python 3.9")
	}
	require.NoError(t, err)
	p := servePexcache(t)
	project := t.TempDir()
	writeTree(t, project, map[string]string{
		"pants.toml": fmt.Sprintf(pantsTOML, p.grpc, pex, strings.ReplaceAll(digestOf(string(content)), "/", "|")),
		"BUILDROOT":  "", "app/main.py": "print('hello')\n", "app/BUILD": pantsBUILD,
	})
	pack := func() (counters map[string]string, dist map[string]string) {
		require.NoError(t, os.RemoveAll(filepath.Join(project, "dist")))
		state := t.TempDir()
		env := []string{"HOME=" + state, "XDG_CACHE_HOME=" + filepath.Join(state, "cache")}
		for _, name := range []string{"LOCAL_STORE_DIR", "NAMED_CACHES_DIR", "WORKDIR", "PHYSICAL_WORKDIR_BASE", "SUBPROCESSDIR"} {
			env = append(env, "PANTS_"+name+"="+filepath.Join(state, name))
		}
		said := client(t, project, env, pants, "package", "app:")
		counters = map[string]string{}
		for _, m := range regexp.MustCompile(`(?m)^  (remote_\w+): (\d+)$`).FindAllStringSubmatch(said, -1) {
			counters[m[1]] = m[2]
		}
		return counters, readTree(t, filepath.Join(project, "dist"))
	}
	cold, want := pack()
	n := cold["remote_cache_requests"]
	require.NotEqual(t, "0", n)
	require.Equal(t, "0", cold["remote_cache_requests_cached"])
	require.Equal(t, n, cold["remote_cache_write_successes"])
	require.Len(t, want, 2)

	hot, got := pack()
	require.Equal(t, n, hot["remote_cache_requests"])
	// Pants runs a process while it asks the cache for its result, and on a busy machine the process may win.
	require.NotEqual(t, "0", hot["remote_cache_requests_cached"])
	require.Equal(t, number(t, n), number(t, hot["remote_cache_requests_cached"])+number(t, hot["remote_cache_speculation_local_completed_first"]))
	require.Equal(t, "0", hot["remote_cache_read_errors"])
	require.Equal(t, "0", hot["remote_store_missing_digest"])
	require.Equal(t, want, got)
}

// number reads a counter; one that is not there is 0.
func number(t *testing.T, s string) int {
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}
