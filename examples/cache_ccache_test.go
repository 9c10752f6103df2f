package examples

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCacheCcache compiles on one host, and on a second one that has only the remote cache.
func TestCacheCcache(t *testing.T) {
	clients(t)
	if _, err := exec.LookPath("ccache"); err != nil {
		t.Skip("needs ccache 4.7: apt-get install ccache")
	}
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("needs a C compiler")
	}
	p := servePexcache(t)
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"a.c": "int add(int a, int b) { return a + b; }\n", "b.c": "int two(void) { return 2; }\n"})
	compile := func() string {
		env := []string{"CCACHE_DIR=" + t.TempDir(), "CCACHE_REMOTE_STORAGE=http://" + p.http + "|layout=bazel"}
		for _, name := range []string{"a", "b"} {
			client(t, dir, env, "ccache", "cc", "-c", name+".c", "-o", name+".o")
		}
		return strings.ReplaceAll(client(t, dir, env, "ccache", "--print-stats"), "\t", " ")
	}
	cold := compile()
	require.Contains(t, cold, "\ncache_miss 2\n")
	require.Contains(t, cold, "\nremote_storage_hit 0\n")
	want := readTree(t, dir)
	require.NoError(t, exec.Command("rm", filepath.Join(dir, "a.o"), filepath.Join(dir, "b.o")).Run())

	hot := compile()
	require.Contains(t, hot, "\ndirect_cache_hit 2\n")
	require.Contains(t, hot, "\nremote_storage_hit 2\n")
	require.Contains(t, hot, "\nremote_storage_error 0\n")
	require.Equal(t, want, readTree(t, dir))
}
