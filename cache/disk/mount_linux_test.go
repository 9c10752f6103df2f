package disk

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// mountTmpfs mounts a small file system of its own, which needs root.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestFullDisk(t *testing.T) {
	s := openStore(t, mountTmpfs(t, "size=1m"), Options{})
	kept := random(300 << 10)
	d, err := cache.PutBlob(t.Context(), s, kept)
	require.NoError(t, err)

	large := random(2 << 20)
	for what, err := range map[string]error{
		"put":    s.Put(t.Context(), digest.FromBytes(large), bytes.NewReader(large)),
		"batch":  s.PutMany(t.Context(), []cache.Blob{{Digest: digest.FromBytes(large), Data: large}}),
		"result": s.UpdateActionResult(t.Context(), d, &repb.ActionResult{StdoutRaw: large}),
	} {
		require.ErrorIs(t, err, cache.ErrFull, what)
		require.ErrorIs(t, err, unix.ENOSPC, what)
		require.ErrorContains(t, err, "free some space on the file system of "+s.dir, what)
	}
	require.False(t, has(t, s, digest.FromBytes(large)))
	require.Empty(t, regularFiles(t, s.path("tmp")), "nothing half written takes up the space that is left")
	got, err := cache.ReadBlob(t.Context(), s, d, 1<<20)
	require.NoError(t, err)
	require.True(t, bytes.Equal(kept, got))
	put(t, s, "a small one still fits")
	requireCounted(t, s)
}

// TestFullDiskAtOpen checks the case in which not even the directories can be made.
func TestFullDiskAtOpen(t *testing.T) {
	dir := mountTmpfs(t, "size=1m,nr_inodes=3")
	_, err := Open(dir, Options{})
	require.ErrorIs(t, err, cache.ErrFull)
	require.ErrorContains(t, err, "open cache directory "+dir)
}

// TestReadOnlyDirectory mounts the store read-only, since modes do not stop root.
func TestReadOnlyDirectory(t *testing.T) {
	dir := mountTmpfs(t, "size=1m")
	s := openStore(t, dir, Options{})
	d := put(t, s, "readable")
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	t.Cleanup(func() { require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "")) })

	_, err := Open(dir, Options{})
	require.ErrorIs(t, err, unix.EROFS)
	require.ErrorContains(t, err, "make "+dir+" a writable directory or choose another")
	b := []byte("not there")
	err = s.Put(t.Context(), digest.FromBytes(b), bytes.NewReader(b))
	require.ErrorContains(t, err, "make "+dir+" a writable directory or choose another")
	got, err := cache.ReadBlob(t.Context(), s, d, 100)
	require.NoError(t, err)
	require.Equal(t, "readable", string(got))
}

func TestUnwritableDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("modes do not stop root; TestReadOnlyDirectory covers the same")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o555))
	_, err := Open(dir, Options{})
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, "make "+dir+" a writable directory or choose another")
}
