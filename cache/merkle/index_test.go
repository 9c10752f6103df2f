package merkle

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/digest"
)

// remembered puts a record for path, as it is now, with a digest that is not its own, into an index: who returns that
// digest has not read the file. It stands for a file that was hashed long after it was written.
func remembered(t *testing.T, index, path string) digest.Digest {
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	made := digest.FromSum([32]byte{1, 2, 3}, st.Size)
	require.NoError(t, os.WriteFile(index, encodeIndex(map[string]record{path: {stampOf(&st), made}}), 0o600))
	return made
}

func TestUnchangedFilesAreNotRead(t *testing.T) {
	dir := t.TempDir()
	index, path := filepath.Join(dir, "index"), write(t, filepath.Join(dir, "f"), "one")
	made := remembered(t, index, path)
	before, err := os.Stat(index)
	require.NoError(t, err)
	h := hasher(t, index)
	require.Equal(t, made, hash(t, h, path)[0])
	require.NoError(t, h.Save())
	after, err := os.Stat(index)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "nothing learned, nothing written")
}

func TestChangedFilesAreRead(t *testing.T) {
	for what, change := range map[string]func(t *testing.T, path string){
		"size":  func(t *testing.T, path string) { write(t, path, "longer") },
		"inode": func(t *testing.T, path string) { require.NoError(t, os.Rename(write(t, path+".new", "two"), path)) },
		"same size, time set back": func(t *testing.T, path string) {
			st, err := os.Stat(path)
			require.NoError(t, err)
			time.Sleep(20 * time.Millisecond) // more than a tick of the kernel's clock
			write(t, path, "two")
			require.NoError(t, os.Chtimes(path, st.ModTime(), st.ModTime()))
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			index, path := filepath.Join(dir, "index"), write(t, filepath.Join(dir, "f"), "one")
			remembered(t, index, path)
			change(t, path)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, digest.FromBytes(b), hash(t, hasher(t, index), path)[0])
		})
	}
}

// TestRacilyClean hashes a file that has just been written: another write in the same tick could leave all its times
// as they are, so nothing is remembered.
func TestRacilyClean(t *testing.T) {
	dir := t.TempDir()
	index, path := filepath.Join(dir, "index"), write(t, filepath.Join(dir, "f"), "one")
	h := hasher(t, index)
	hash(t, h, path)
	require.NoError(t, h.Save())
	require.NoFileExists(t, index, "an edit costs no index")

	_, settled, err := hashFile(path)
	require.NoError(t, err)
	require.False(t, settled)
	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(path, past, past))
	_, settled, err = hashFile(path)
	require.NoError(t, err)
	require.False(t, settled, "the change time cannot be set back")
}

func TestSettledFilesAreRemembered(t *testing.T) {
	dir := t.TempDir()
	index := filepath.Join(dir, "index")
	own, err := os.Executable() // was written well before this test began, or the test waits for nothing
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, settled, err := hashFile(own)
		return err == nil && settled
	}, time.Minute, 100*time.Millisecond)
	h := hasher(t, index)
	d := hash(t, h, own)[0]
	require.NoError(t, h.Save())
	require.Equal(t, d, hasher(t, index).old[own].digest)
}

func TestDamagedIndexIsIgnored(t *testing.T) {
	dir := t.TempDir()
	index, path := filepath.Join(dir, "index"), write(t, filepath.Join(dir, "f"), "one")
	remembered(t, index, path)
	whole, err := os.ReadFile(index)
	require.NoError(t, err)
	require.Len(t, decodeIndex(whole), 1)
	for n := range whole {
		require.Empty(t, decodeIndex(whole[:n]), "cut at %d", n)
		flipped := slices.Clone(whole)
		flipped[n] ^= 1
		require.Empty(t, decodeIndex(flipped), "flipped at %d", n)
	}
	require.NoError(t, os.WriteFile(index, whole[:len(whole)-1], 0o600))
	require.Equal(t, one, hash(t, hasher(t, index), path)[0])

	require.NoError(t, os.Remove(index))
	require.NoError(t, os.Mkdir(index, 0o700))
	_, err = NewHasher(index)
	require.ErrorContains(t, err, "index")
}

func FuzzDecodeIndex(f *testing.F) {
	f.Add(encodeIndex(nil))
	f.Add(encodeIndex(map[string]record{"a": {stamp{1, 2, 3, 4, 5}, one}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		records := decodeIndex(b)
		require.Equal(t, len(records), len(decodeIndex(encodeIndex(records))))
	})
}

func TestSavesAtOnce(t *testing.T) {
	dir := t.TempDir()
	index := filepath.Join(dir, "index")
	paths := map[int]string{}
	for i := range 8 {
		paths[i] = write(t, filepath.Join(dir, fmt.Sprint(i)), "x")
	}
	var wg sync.WaitGroup
	for _, path := range paths {
		wg.Go(func() {
			for range 20 {
				h, err := NewHasher(index)
				if err != nil {
					t.Error(err)
					return
				}
				h.fresh[path] = record{digest: one}
				h.dirty.Store(true)
				if err := h.Save(); err != nil {
					t.Error(err)
				}
				if len(hasher(t, index).old) == 0 {
					t.Error("the index is not whole")
				}
			}
		})
	}
	wg.Wait()
	left, err := filepath.Glob(filepath.Join(dir, ".index-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestIndexForgetsFilesThatAreGone(t *testing.T) {
	dir := t.TempDir()
	index, there := filepath.Join(dir, "index"), write(t, filepath.Join(dir, "there"), "x")
	other := write(t, filepath.Join(dir, "of-another-project"), "x")
	h := hasher(t, index)
	h.old = map[string]record{there: {digest: one}, other: {digest: one}, filepath.Join(there, "below-a-file"): {digest: one}}
	for i := range 5000 {
		h.old[filepath.Join(dir, fmt.Sprint("gone", i))] = record{digest: one}
	}
	h.fresh[there] = record{digest: two}
	for range 5 {
		h.dirty.Store(true)
		require.NoError(t, h.Save())
		saved := hasher(t, index)
		h.old = saved.old
	}
	require.ElementsMatch(t, []string{there, other}, slices.Collect(maps.Keys(h.old)))
	require.Equal(t, two.Hash(), h.old[there].digest.Hash())
}

func TestIndexIsBounded(t *testing.T) {
	index := filepath.Join(t.TempDir(), "index")
	h := hasher(t, index)
	for i := range maxIndex + 1 {
		h.old[fmt.Sprint("/", i)] = record{digest: one}
	}
	h.fresh["a"] = record{digest: one}
	h.dirty.Store(true)
	require.NoError(t, h.Save())
	require.Len(t, hasher(t, index).old, 1)
}
