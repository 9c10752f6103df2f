package disk

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
)

func openStore(t *testing.T, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func newStore(t *testing.T) *Store { return openStore(t, t.TempDir(), Options{}) }

func TestCAS(t *testing.T) {
	for _, fn := range digest.Functions {
		t.Run(fn.String(), func(t *testing.T) {
			cachetest.TestCASWith(t, fn, func(t *testing.T) cache.CAS { return newStore(t) })
		})
	}
}

func TestCASWithLimit(t *testing.T) {
	cachetest.TestCAS(t, func(t *testing.T) cache.CAS {
		return openStore(t, t.TempDir(), Options{MaxBytes: 32 << 20})
	})
}

func TestActionCache(t *testing.T) {
	cachetest.TestActionCache(t, func(t *testing.T) (cache.CAS, cache.ActionCache) {
		s := newStore(t)
		return s, s
	})
}

func put(t *testing.T, s *Store, content string) digest.Digest {
	t.Helper()
	d, err := cache.PutBlob(t.Context(), s, []byte(content))
	require.NoError(t, err)
	return d
}

func has(t *testing.T, s *Store, d digest.Digest) bool {
	t.Helper()
	missing, err := s.FindMissing(t.Context(), []digest.Digest{d})
	require.NoError(t, err)
	return len(missing) == 0
}

// requireCounted checks that the ledger says what a scan finds.
func requireCounted(t *testing.T, s *Store) {
	t.Helper()
	entries, err := s.scan(t.Context())
	require.NoError(t, err)
	want := &ledger{}
	want.count(entries)
	require.NoError(t, s.withLedger(t.Context(), func(l *ledger) error {
		require.Equal(t, want.Bytes, l.Bytes)
		require.Equal(t, want.Files, l.Files)
		return nil
	}))
}

// regularFiles lists the files below a directory of the store.
func regularFiles(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	}))
	return files
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on the way")
	first, err := Open(dir, Options{})
	require.NoError(t, err)
	d := put(t, first, "kept")
	require.NoError(t, first.Close())

	second := openStore(t, dir, Options{})
	b, err := cache.ReadBlob(t.Context(), second, d, 100)
	require.NoError(t, err)
	require.Equal(t, "kept", string(b))
	requireCounted(t, second)
}

func TestTwoStoresOneDirectory(t *testing.T) {
	dir := t.TempDir()
	a, b := openStore(t, dir, Options{}), openStore(t, dir, Options{})
	d := put(t, a, "of one")
	require.True(t, has(t, b, d))
	put(t, b, "of the other")
	requireCounted(t, a)
	requireCounted(t, b)
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		_, err := Open(dir, Options{})
		require.ErrorContains(t, err, "open cache directory "+dir)
		require.ErrorContains(t, err, "make "+dir+" a writable directory or choose another")
	}
	_, err := Open("", Options{})
	require.ErrorContains(t, err, "no directory")
}

func TestOpenRefusesNewerFormat(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "VERSION"), []byte("2\n"), 0o644))
	_, err := Open(dir, Options{})
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, `it has format "2" and this program knows "1"`)
	require.Len(t, regularFiles(t, dir), 1, "nothing was added")
}

func TestOpenSweepsTheDead(t *testing.T) {
	s := newStore(t)
	left := s.path("tmp", "left-behind")
	require.NoError(t, os.Mkdir(left, 0o755))
	require.NoError(t, os.WriteFile(left+"/1", []byte("half a blo"), 0o644))

	other := openStore(t, s.dir, Options{})
	require.NoDirExists(t, left)
	require.DirExists(t, s.session.dir, "the living keep theirs")
	put(t, s, "still works")
	put(t, other, "this one too")
	require.Empty(t, regularFiles(t, s.path("tmp")))
}

func TestFailedPutLeavesNothing(t *testing.T) {
	s := newStore(t)
	d := digest.FromBytes([]byte("right"))
	require.ErrorIs(t, s.Put(t.Context(), d, bytes.NewReader([]byte("wrong"))), digest.ErrMismatch)
	batch := []cache.Blob{{Digest: digest.FromBytes([]byte("a")), Data: []byte("a")}, {Digest: d, Data: []byte("wrong")}}
	require.ErrorIs(t, s.PutMany(t.Context(), batch), digest.ErrMismatch)
	require.Empty(t, regularFiles(t, s.path("tmp")))
	require.Empty(t, regularFiles(t, s.path("cas")))
	requireCounted(t, s)
}

func TestPutManyOfEverySize(t *testing.T) {
	for _, n := range []int{1, syncAllFrom - 1, syncAllFrom + 40} {
		s := newStore(t)
		batch := make([]cache.Blob, n)
		for i := range batch {
			b := bytes.Repeat([]byte{byte(i)}, i+1)
			batch[i] = cache.Blob{Digest: digest.FromBytes(b), Data: b}
		}
		require.NoError(t, s.PutMany(t.Context(), batch))
		require.NoError(t, s.PutMany(t.Context(), batch))
		require.Len(t, regularFiles(t, s.path("cas")), n)
		require.Empty(t, regularFiles(t, s.path("tmp")))
		requireCounted(t, s)
	}
}

// TestTruncatedBlob checks that a copy that is short is no copy: it is missing, and a Put mends it.
func TestTruncatedBlob(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "a whole blob")
	path := name{blobs, d}.path(s)
	require.NoError(t, os.Truncate(path, 3))
	require.False(t, has(t, s, d))
	require.Equal(t, d, put(t, s, "a whole blob"))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "a whole blob", string(b))
}

func TestEvictedBlobStaysReadable(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "open while it goes")
	rc, err := s.Get(t.Context(), d)
	require.NoError(t, err)
	defer rc.Close()
	_, err = s.GC(t.Context(), 0)
	require.NoError(t, err)
	require.False(t, has(t, s, d))
	b, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.Equal(t, "open while it goes", string(b))
}

// age makes a blob look as if it was last used some time ago.
func age(t *testing.T, s *Store, d digest.Digest, ago time.Duration) {
	t.Helper()
	path := name{blobs, d}.path(s)
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(-ago)))
}
