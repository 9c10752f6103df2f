package open_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/open"
)

func TestDir(t *testing.T) {
	dir := t.TempDir()
	for _, address := range []string{dir, "file://" + dir} {
		got, ok := open.Dir(address)
		require.True(t, ok)
		require.Equal(t, dir, got)
		_, _, closer, err := open.Open(t.Context(), address)
		require.NoError(t, err)
		require.NoError(t, closer.Close())
	}
	require.FileExists(t, filepath.Join(dir, "CACHEDIR.TAG"), "backup programs pass over it")
}

// TestRefused holds addresses that look like something else and must not become directories.
func TestRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, address := range []string{
		"", "unix:/tmp/x.sock", "file:/tmp/x", "file://localhost/x", "file://relative", "http://host", "grpc:host", "s3://bucket",
	} {
		_, _, _, err := open.Open(t.Context(), address)
		require.Error(t, err, address)
	}
	left, err := filepath.Glob("*")
	require.NoError(t, err)
	require.Empty(t, left)
}
