package compose

import (
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

func write(t *testing.T, path, content string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// TestReadTree reads a directory as sandboxes stage it: absolute symlinks stand for what they name, a relative one behind
// them is the tree's own.
func TestReadTree(t *testing.T) {
	real, staged := t.TempDir(), t.TempDir()
	write(t, filepath.Join(real, "a"), "a\n")
	write(t, filepath.Join(real, "sub/b"), "b\n")
	require.NoError(t, os.Symlink("a", filepath.Join(real, "link")))
	require.NoError(t, os.Mkdir(filepath.Join(real, "empty"), 0o755))
	for _, name := range []string{"a", "sub", "link"} {
		require.NoError(t, os.Symlink(filepath.Join(real, name), filepath.Join(staged, name)))
	}
	want, err := ReadTree(t.Context(), real, false)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"link": "a"}, maps.Collect(want.Symlinks()))
	require.Equal(t, map[string]digest.Digest{"a": digest.FromBytes([]byte("a\n")), "sub/b": digest.FromBytes([]byte("b\n"))},
		maps.Collect(want.Files()))
	got, err := ReadTree(t.Context(), staged, true)
	require.NoError(t, err)
	require.Equal(t, want.Root(), got.Root())
	_, err = ReadTree(t.Context(), staged, false)
	require.ErrorIs(t, err, merkle.ErrPath)

	one, two := filepath.Join(staged, "one"), filepath.Join(staged, "two")
	require.NoError(t, os.Symlink(one, two))
	require.NoError(t, os.Symlink(two, one))
	_, err = ReadTree(t.Context(), staged, true)
	require.ErrorContains(t, err, "in a circle")
	require.NoError(t, syscall.Mkfifo(filepath.Join(real, "pipe"), 0o600))
	_, err = ReadTree(t.Context(), real, false)
	require.ErrorContains(t, err, "neither file, directory nor symlink")
}

// TestWriteChanged has an input change between planning and writing: nothing may be left of the output.
func TestWriteChanged(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "in/m.py"), "one\n")
	s := newStore()
	tree, err := s.sourceTree(t.Context(), &content{files: []Entry{{"m.py", path}}})
	require.NoError(t, err)
	out := &Output{Tree: tree, cas: s}
	write(t, path, "two\n")
	for name, write := range map[string]func() error{
		"tree":  func() error { return out.Write(t.Context(), filepath.Join(dir, "tree")) },
		"blobs": func() error { return out.WriteBlobs(t.Context(), filepath.Join(dir, "blobs")) },
	} {
		require.ErrorIs(t, write(), digest.ErrMismatch)
		require.NoDirExists(t, filepath.Join(dir, name))
	}
}
