package merkle

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// filled returns a CAS with the content of the small tree.
func filled(t *testing.T) *memory.Store {
	cas := memory.New()
	for _, s := range []string{"one", "two"} {
		_, err := cache.PutBlob(t.Context(), cas, []byte(s))
		require.NoError(t, err)
	}
	return cas
}

func TestMaterialize(t *testing.T) {
	tree := small(t, 0, 1, 2, 3, 4)
	dir := filepath.Join(t.TempDir(), "tree")
	stats, err := Materialize(t.Context(), filled(t), tree, dir)
	require.NoError(t, err)
	require.Equal(t, Stats{Files: 4, Bytes: 9}, stats)

	want := map[string]string{"pkg/__init__.py": "", "pkg/ä.py": "one", "__main__.py": "two", "pkg/again": "two", "a/b/c": "one"}
	got := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := e.Info()
		require.NoError(t, err)
		switch {
		case e.IsDir():
			require.Equal(t, fs.FileMode(0o700), info.Mode().Perm()&0o700)
			return nil
		case info.Mode().IsRegular():
			require.Zero(t, info.Mode().Perm()&0o222, "nobody writes to what is named by its content")
			require.Equal(t, fs.FileMode(0o500), info.Mode().Perm()&0o500)
			require.True(t, info.ModTime().Equal(ModTime))
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		got[rel] = string(b)
		return err
	}))
	require.Equal(t, want, got)
	target, err := os.Readlink(filepath.Join(dir, "pkg/again"))
	require.NoError(t, err)
	require.Equal(t, "../__main__.py", target)
	require.Equal(t, 1980, ModTime.Year())
}

func TestMaterializeIntoWhatIsThere(t *testing.T) {
	tree := small(t, 0, 1, 2, 3, 4)
	dir := t.TempDir()
	keep := filepath.Join(dir, "keep")
	require.NoError(t, os.WriteFile(keep, []byte("mine"), 0o600))
	_, err := Materialize(t.Context(), filled(t), tree, dir)
	require.ErrorIs(t, err, fs.ErrExist)
	require.FileExists(t, keep, "what was there is not touched")

	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(t.TempDir(), link))
	_, err = Materialize(t.Context(), filled(t), tree, link)
	require.ErrorIs(t, err, fs.ErrExist, "a symlink to a directory is not written through")
}

func TestMaterializeLeavesNothingAfterAnError(t *testing.T) {
	tree := small(t, 0, 1, 2, 3, 4)
	dir := filepath.Join(t.TempDir(), "tree")
	_, err := Materialize(t.Context(), memory.New(), tree, dir)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.NoDirExists(t, dir)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Materialize(ctx, filled(t), tree, dir)
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, dir)

	ctx, cancel = context.WithCancel(t.Context())
	_, err = Materialize(ctx, cancelling{filled(t), cancel}, tree, dir)
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, dir)
}

// cancelling gives up the whole work as soon as a blob is read.
type cancelling struct {
	cache.CAS
	cancel func()
}

func (c cancelling) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	c.cancel()
	return c.CAS.Get(ctx, d)
}

// TestNothingIsWrittenThroughASymlink puts a symlink to a directory beside a file that would land there if the symlink
// were made first and followed.
func TestNothingIsWrittenThroughASymlink(t *testing.T) {
	cas := memory.New()
	data := []byte("data")
	d, err := cache.PutBlob(t.Context(), cas, data)
	require.NoError(t, err)
	var b Builder
	require.NoError(t, b.Symlink("a", "z"))
	require.NoError(t, b.File("z/f", d))
	require.NoError(t, b.Symlink("z/a", "f"))
	tree, err := b.Build()
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "tree")
	_, err = Materialize(t.Context(), linkless{cas, dir, t}, tree, dir)
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(dir, "a", "a"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

// linkless fails the test if there is a symlink before the last file is being written.
type linkless struct {
	cache.CAS
	dir string
	t   *testing.T
}

func (l linkless) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	_ = filepath.WalkDir(l.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type() == fs.ModeSymlink {
			l.t.Errorf("%s is a symlink, and files are still to come", path)
		}
		return nil
	})
	return l.CAS.Get(ctx, d)
}
