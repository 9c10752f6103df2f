package limits

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// odd is a directory as systemd and others name groups: what is in it means something in a pattern, and in a group's name.
func odd(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), `system-code\x2dserver[1].v-2.slice`)
	require.NoError(t, os.Mkdir(dir, 0o755))
	return dir
}

// TestOddGroups finds the groups of a codeserver whose own has an odd name.
func TestOddGroups(t *testing.T) {
	dir := odd(t)
	h := &Host{layout: &v2{mount: dir, has: []string{"cpu"}}, prefix: "pexpress-1.v-"}
	for _, name := range []string{"pexpress-1.v-web-2", "pexpress-2.v-web-2"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name, "below", "further"), 0o755))
	}
	require.Equal(t, []string{"pexpress-1.v-web-2"}, h.groups(cpu))
	require.NoError(t, h.Sweep(nobodys))
	require.Empty(t, h.groups(cpu))
	require.Equal(t, []string{"pexpress-2.v-web-2"}, below(dir, ""))
}

// TestOddZygotes ends the zygotes of a codeserver that has ended, whose own group has an odd name.
func TestOddZygotes(t *testing.T) {
	dir := odd(t)
	ended := exec.Command("true")
	require.NoError(t, ended.Run())
	theirs, ours := fmt.Sprintf("pexpress-1.v-_zygote-%d-x", ended.Process.Pid), fmt.Sprintf("pexpress-1.v-_zygote-%d-x", os.Getpid())
	for _, name := range []string{theirs, ours, strings.Replace(theirs, "-1", "-2", 1), "pexpress-1.v-web.v-1-2"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	require.NoError(t, EndZygotes([]string{filepath.Join(dir, "pexpress-1.v-web.v-1-2")}))
	require.NoDirExists(t, filepath.Join(dir, theirs))
	require.Len(t, below(dir, ""), 3)
}
