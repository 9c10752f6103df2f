package merkle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/digest"
)

func write(t testing.TB, path, content string) string {
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func hasher(t testing.TB, index string) *Hasher {
	h, err := NewHasher(index)
	require.NoError(t, err)
	return h
}

func hash(t testing.TB, h *Hasher, paths ...string) []digest.Digest {
	ds, err := h.Files(t.Context(), paths)
	require.NoError(t, err)
	return ds
}

func TestHashesFilesInOrder(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	var want []digest.Digest
	for i := range 10_000 {
		content := fmt.Sprint("content ", i)
		paths = append(paths, write(t, filepath.Join(dir, fmt.Sprint(i)), content))
		want = append(want, digest.FromBytes([]byte(content)))
	}
	h := hasher(t, "")
	require.Equal(t, want, hash(t, h, paths...))
	require.NoError(t, h.Save(), "without an index there is nothing to save")
	require.Empty(t, hash(t, h))
}

func TestFollowsSymlinks(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(write(t, filepath.Join(dir, "f"), "one"), link))
	require.Equal(t, []digest.Digest{one}, hash(t, hasher(t, ""), link))
}

func TestWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	socket := filepath.Join(dir, "dangling")
	require.NoError(t, os.Symlink("nowhere", socket))
	for path, says := range map[string]string{
		fifo: "not a regular file", dir: "not a regular file", "/dev/null": "not a regular file",
		socket: "no such file", filepath.Join(dir, "gone"): "no such file",
	} {
		_, err := hasher(t, "").Files(t.Context(), []string{path})
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, path)
	}
	_, _, err := hashFile(fifo)
	require.ErrorIs(t, err, errIrregular, "one that takes the place of a file is not waited for")

	if os.Geteuid() != 0 {
		secret := write(t, filepath.Join(dir, "secret"), "x")
		require.NoError(t, os.Chmod(secret, 0))
		_, err := hasher(t, "").Files(t.Context(), []string{secret})
		require.ErrorIs(t, err, os.ErrPermission)
	}
}

func TestHashingIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := hasher(t, "").Files(ctx, []string{write(t, filepath.Join(t.TempDir(), "f"), "x")})
	require.ErrorIs(t, err, context.Canceled)
}

// TestChangedWhileRead writes to a file for as long as it is read: the digest is of none of its contents.
func TestChangedWhileRead(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "f"), "")
	require.NoError(t, os.Truncate(path, 64<<20))
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		for err == nil {
			select {
			case <-stop:
				stopped <- f.Close()
				return
			default:
				_, err = f.WriteString("x")
				time.Sleep(time.Millisecond)
			}
		}
		stopped <- err
	}()
	_, err := hasher(t, "").Files(t.Context(), []string{path})
	close(stop)
	require.NoError(t, <-stopped)
	require.ErrorIs(t, err, ErrChanged)
	require.ErrorContains(t, err, path)
}

func TestLargeFilesAreStreamed(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "large"), "")
	require.NoError(t, os.Truncate(path, 200<<20))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d := hash(t, hasher(t, ""), path)[0]
	runtime.ReadMemStats(&after)
	require.Equal(t, int64(200<<20), d.Size())
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
}

func TestOneHasherServesMany(t *testing.T) {
	dir := t.TempDir()
	h := hasher(t, filepath.Join(dir, "index"))
	path := write(t, filepath.Join(dir, "f"), "one")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			ds, err := h.Files(t.Context(), []string{path, path})
			if err != nil || ds[0] != one || ds[1] != one {
				t.Error(ds, err)
			}
			if err := h.Save(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
