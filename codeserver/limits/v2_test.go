package limits

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLessOfVersion2 makes a group where a controller is missing that a limit needs: the others hold. Isolation says so.
func TestLessOfVersion2(t *testing.T) {
	v := &v2{mount: t.TempDir(), base: "service", has: []string{"memory", "pids"}}
	dir := filepath.Join(v.mount, v.base)
	require.NoError(t, os.Mkdir(dir, 0o755))
	for _, d := range []string{v.mount, dir} {
		require.NoError(t, os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), nil, 0o644))
	}
	require.NoError(t, v.make("group", Limits{Memory: 1 << 20, CPU: 500, Pids: 10}))
	for file, content := range map[string]string{
		"cgroup.subtree_control": "+memory +pids", "group/memory.max": "1048576", "group/memory.oom.group": "1", "group/pids.max": "10",
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		require.Equal(t, content, string(b), file)
	}
	require.NoFileExists(t, filepath.Join(dir, "group/cpu.max"))
}
