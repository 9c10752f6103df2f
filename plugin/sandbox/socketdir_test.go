package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSocketDirSweep checks that the directories of hosts that were killed go, and no others.
func TestSocketDirSweep(t *testing.T) {
	tmp, err := os.MkdirTemp("/tmp", "sweep") // t.TempDir's path is too long for sockets
	require.NoError(t, err)
	defer os.RemoveAll(tmp)
	t.Setenv("TMPDIR", tmp)
	live, err := NewSocketDir()
	require.NoError(t, err)
	dead, err := NewSocketDir()
	require.NoError(t, err)
	young, err := NewSocketDir()
	require.NoError(t, err)
	for _, d := range []*SocketDir{dead, young} {
		require.NoError(t, d.lock.Close()) // as the kernel does when a host is killed
	}
	other := filepath.Join(tmp, dirPrefix+"of-something-else")
	require.NoError(t, os.Mkdir(other, 0o700))
	long := time.Now().Add(-time.Hour)
	for _, d := range []*SocketDir{live, dead} {
		require.NoError(t, os.Chtimes(filepath.Join(d.Path, dirLock), long, long))
	}
	next, err := NewSocketDir()
	require.NoError(t, err)
	require.NoDirExists(t, dead.Path)
	require.DirExists(t, live.Path)
	require.DirExists(t, young.Path)
	require.DirExists(t, other)
	require.NoError(t, live.Close())
	require.NoError(t, next.Close())
	require.NoDirExists(t, live.Path)
}

func TestSocketDirShort(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp/"+strings.Repeat("x", 80))
	d, err := NewSocketDir()
	require.NoError(t, err)
	defer d.Close()
	require.Equal(t, "/tmp", filepath.Dir(d.Path))
	st, err := os.Stat(d.Path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())
}
