package venv

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFind(t *testing.T) {
	h := newHost(t)
	require.Equal(t, "3.11", h.py.Version)
	require.Equal(t, "cpython-311", h.py.Tag)
	require.Regexp(t, `^3\.11\.\d+`, h.py.FullVersion)
	real, err := filepath.EvalSymlinks(h.py.Path)
	require.NoError(t, err)
	require.Equal(t, real, h.py.Path)

	t.Run("through an environment", func(t *testing.T) {
		e := h.env("tree", h.alpha())
		t.Setenv("PATH", filepath.Join(e.Dir, "bin"))
		py, err := Find(t.Context(), "3.11")
		require.NoError(t, err)
		require.Equal(t, h.py, py)
	})
	t.Run("past what is not it", func(t *testing.T) {
		bad, good := t.TempDir(), t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(bad, "python3.11"), []byte("#!/bin/sh\necho no; exit 3\n"), 0o755))
		require.NoError(t, os.Symlink(h.py.Path, filepath.Join(good, "python3.11")))
		t.Setenv("PATH", bad+":"+good)
		py, err := Find(t.Context(), "3.11")
		require.NoError(t, err)
		require.Equal(t, h.py, py)
	})
	t.Run("pyenv", func(t *testing.T) {
		root := t.TempDir()
		t.Setenv("PATH", "/nonexistent")
		t.Setenv("PYENV_ROOT", root)
		bin := filepath.Join(root, "versions", "3.11.7", "bin")
		require.NoError(t, os.MkdirAll(bin, 0o755))
		_, err := Find(t.Context(), "3.11")
		require.ErrorContains(t, err, "looked for python3.11 in PATH and in "+root)
		require.ErrorContains(t, err, "install CPython 3.11")
		require.NoError(t, os.Symlink(h.py.Path, filepath.Join(bin, "python3.11")))
		py, err := Find(t.Context(), "3.11")
		require.NoError(t, err)
		require.Equal(t, h.py, py)
	})
	t.Run("another version under its name", func(t *testing.T) {
		dir := t.TempDir()
		t.Setenv("PATH", dir)
		t.Setenv("PYENV_ROOT", dir)
		require.NoError(t, os.Symlink(h.py.Path, filepath.Join(dir, "python3.99")))
		_, err := Find(t.Context(), "3.99")
		require.ErrorContains(t, err, "is cpython 3.11, not CPython 3.99")
	})
	for _, version := range []string{"", "3", "2.7", "3.11.7", "3.11/../x"} {
		_, err := Find(t.Context(), version)
		require.ErrorContains(t, err, "is not a version such as 3.11")
	}
}
