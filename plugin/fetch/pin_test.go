package fetch

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// tiny makes a wheel in a directory and returns the directory, the wheel's bytes and its pin.
func tiny(t *testing.T) (dir, data string, _ Pin) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range [][2]string{
		{"tiny.py", "x = 1\n"},
		{"tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"},
		{"tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"tiny-1.0.dist-info/RECORD", ""},
	} {
		w, err := z.Create(m[0])
		require.NoError(t, err)
		_, err = w.Write([]byte(m[1]))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	dir = t.TempDir()
	name := "tiny-1.0-py3-none-any.whl"
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600))
	return dir, b.String(), Pin{
		Project: "tiny", Version: "1.0", Filename: name, SHA256: sum(b.String()), Size: int64(b.Len()),
	}
}

func TestPinned(t *testing.T) {
	clean(t)
	dir, data, pin := tiny(t)
	t.Setenv("PIP_FIND_LINKS", dir)
	t.Setenv("PIP_NO_INDEX", "1")
	f := fetcher(t, Options{})
	d, err := f.Pinned(t.Context(), pin)
	require.NoError(t, err)
	require.Equal(t, pin.Digest(), d)
	f.requireHas(t, data)

	require.NoError(t, os.RemoveAll(dir))
	var b bytes.Buffer
	require.NoError(t, f.Copy(t.Context(), pin, &b), "pip is not asked for what is in the CAS")
	require.Equal(t, data, b.String())
}

func TestPinnedRefuses(t *testing.T) {
	clean(t)
	dir, data, pin := tiny(t)
	t.Setenv("PIP_FIND_LINKS", dir)
	t.Setenv("PIP_NO_INDEX", "1")
	other := pin
	other.SHA256 = sum("other")
	f := fetcher(t, Options{})
	_, err := f.Pinned(t.Context(), other)
	require.ErrorContains(t, err, "find tiny 1.0, which pexpress needs: pip could not")
	f.requireLacks(t, data)

	t.Setenv("PIP_FIND_LINKS", t.TempDir())
	_, err = f.Pinned(t.Context(), pin)
	require.ErrorContains(t, err, "pip could not")
	t.Setenv("PATH", t.TempDir())
	_, err = f.Pinned(t.Context(), pin)
	require.ErrorContains(t, err, "python3 with pip is needed")
}

func TestPinsAreWellFormed(t *testing.T) {
	require.Equal(t, PexPin.SHA256, PexPin.Digest().Hash())
	for platform, p := range uvPins {
		require.Equal(t, p.Size, p.Digest().Size(), platform)
		require.Contains(t, p.Filename, p.platform)
		require.Contains(t, p.Filename, "uv-"+uvVersion+"-")
	}
	p, err := UVPin()
	require.NoError(t, err)
	require.Equal(t, "uv", p.Project)
}
