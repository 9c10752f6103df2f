package zygote_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/zygote"
)

// TestScriptOnFullDisk mends a program that was damaged where there is no space for another one beside it.
func TestScriptOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("full", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs to mount a file system: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	path, err := zygote.Script(dir)
	require.NoError(t, err)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, make([]byte, len(whole)), 0o644))
	fill, err := os.Create(filepath.Join(dir, "fill"))
	require.NoError(t, err)
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	before, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, fill.Close())
	again, err := zygote.Script(dir)
	require.NoError(t, err)
	require.Equal(t, path, again)
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "others take what becomes free")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, whole, b)
}
