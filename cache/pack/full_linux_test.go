package pack

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// TestFullDisk has the file system be full long before the store's limit is reached.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	s, err := Open(dir, Options{MaxBytes: 1 << 30})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	c := ns(t, s, "")
	for i := range uint64(600) { // twice what fits
		put(t, c, random(i, 200_000))
		requireBlob(t, c, random(i, 200_000))
	}
	require.Positive(t, s.Stats().Evicted)

	// Somebody else takes all that is left: what is stored can be read, and what cannot be stored is refused.
	hog, err := os.Create(filepath.Join(dir, "hog"))
	require.NoError(t, err)
	for err == nil {
		_, err = hog.Write(make([]byte, 1<<20))
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	var kept []uint64
	for i := uint64(1000); i < 1400; i++ {
		_, err := cache.PutBlob(t.Context(), c, random(i, 200_000))
		if err == nil {
			kept = append(kept, i)
			continue
		}
		require.ErrorIs(t, err, cache.ErrFull)
		require.ErrorContains(t, err, "free some")
	}
	for _, i := range kept {
		d := digest.FromBytes(random(i, 200_000))
		if _, err := cache.ReadBlob(t.Context(), c, d, d.Size()); !errors.Is(err, cache.ErrNotFound) {
			require.NoError(t, err)
		}
	}
	require.NoError(t, errors.Join(hog.Close(), os.Remove(hog.Name())))
	put(t, c, random(2000, 200_000))
	rep, err := s.Verify(t.Context())
	require.NoError(t, err)
	require.Empty(t, rep.Damaged)
	require.NoError(t, s.Close())
	s = openAt(t, dir, Options{MaxBytes: 1 << 30})
	requireBlob(t, ns(t, s, ""), random(2000, 200_000))
}
