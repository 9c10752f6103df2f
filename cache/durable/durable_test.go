package durable_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/durable"
)

// TestWriteFile has several writers and readers at one file: every read sees one writer's whole content.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	contents := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 50_000), ""}
	require.NoError(t, durable.WriteFile(path, []byte(contents[0]), 0o640))
	var wg sync.WaitGroup
	for _, c := range contents {
		wg.Go(func() {
			for range 20 {
				if err := durable.WriteFile(path, []byte(c), 0o640); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, contents, string(b))
	}
	wg.Wait()
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), st.Mode().Perm())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary file stays")
}

func TestWriteFileFails(t *testing.T) {
	require.Error(t, durable.WriteFile(filepath.Join(t.TempDir(), "no", "such", "directory"), nil, 0o600))
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	require.Error(t, durable.WriteFile(filepath.Join(dir, "d"), []byte("x"), 0o600), "a directory is in the way")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	b, err := durable.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "x", string(b))
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	for _, bad := range []string{fifo, "/dev/zero", dir} {
		_, err := durable.ReadFile(bad)
		require.ErrorContains(t, err, "no regular file", bad)
	}
	_, err = durable.ReadFile(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
