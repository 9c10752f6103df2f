package zygote_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/zygote"
)

// TestScriptOnFullDisk mends a program that was damaged where there is no space for another one beside it, and others write.
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
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	others.Go(func() { // who takes all that becomes free
		for ctx.Err() == nil {
			_, _ = fill.Write(make([]byte, 4096))
		}
	})
	again, err := zygote.Script(dir)
	cancel()
	others.Wait()
	require.NoError(t, fill.Close())
	require.NoError(t, err)
	require.Equal(t, path, again)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, whole, b)
}
