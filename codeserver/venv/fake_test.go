package venv

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// file is a member of a wheel that a test makes.
type file struct {
	name, content string
	mode          fs.FileMode // 0 is 0644
	absent        bool        // from RECORD
	record        string      // its line in RECORD, if it is not the true one
	size          uint64      // what the archive declares, if it is not the truth
}

// makeWheel returns a wheel with what PEP 427 wants in it and the given members, one of which may replace what would
// be there.
func makeWheel(t *testing.T, filename string, files ...file) []byte {
	t.Helper()
	parts := strings.Split(filename, "-")
	info := parts[0] + "-" + parts[1] + ".dist-info/"
	has := func(name string) bool {
		return slices.ContainsFunc(files, func(f file) bool { return f.name == info+name })
	}
	for name, content := range map[string]string{
		"WHEEL":    "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
		"METADATA": "Metadata-Version: 2.1\nName: " + parts[0] + "\nVersion: " + parts[1] + "\n",
	} {
		if !has(name) {
			files = append(files, file{name: info + name, content: content})
		}
	}
	if !has("RECORD") {
		var record strings.Builder
		for _, f := range files {
			sum := sha256.Sum256([]byte(f.content))
			switch {
			case f.record != "":
				fmt.Fprintln(&record, f.record)
			case !f.absent && !strings.HasSuffix(f.name, "/"):
				fmt.Fprintf(&record, "%q,sha256=%s,%d\n", f.name, base64.RawURLEncoding.EncodeToString(sum[:]), len(f.content))
			}
		}
		files = append(files, file{name: info + "RECORD", content: record.String() + info + "RECORD,,\n"})
	}
	return makeZip(t, files)
}

func makeZip(t *testing.T, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for _, f := range files {
		if f.name == "" {
			continue
		}
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate}
		if f.mode == 0 {
			f.mode = 0o644
		}
		h.SetMode(f.mode)
		var w io.Writer
		var err error
		if f.size != 0 {
			h.Method = zip.Store
			h.UncompressedSize64, h.CompressedSize64 = f.size, uint64(len(f.content))
			w, err = zw.CreateRaw(h)
		} else {
			w, err = zw.CreateHeader(h)
		}
		require.NoError(t, err)
		_, err = io.WriteString(w, f.content)
		require.NoError(t, err)
	}
	require.NoError(t, zw.Close())
	return b.Bytes()
}

// host is a store with its CAS, which counts what is read.
type host struct {
	*Store
	t    *testing.T
	cas  *countingCAS
	py   *Interpreter
	home string
}

type countingCAS struct {
	cache.CAS
	gets atomic.Int64
}

func (c *countingCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	c.gets.Add(1)
	return c.CAS.Get(ctx, d)
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(dir)
	require.NoError(t, err)
	py, err := Find(t.Context(), "3.11")
	require.NoError(t, err)
	return &host{Store: s, t: t, cas: &countingCAS{CAS: memory.New()}, py: py, home: t.TempDir()}
}

// wheel stores a wheel made of files.
func (h *host) wheel(filename string, files ...file) Wheel {
	h.t.Helper()
	d, err := cache.PutBlob(h.t.Context(), h.cas, makeWheel(h.t, filename, files...))
	require.NoError(h.t, err)
	return Wheel{Filename: filename, Digest: d}
}

func key(s string) digest.Digest { return digest.FromBytes([]byte(s)) }

// env makes an environment, whose key follows from the name.
func (h *host) env(name string, wheels ...Wheel) *Env {
	h.t.Helper()
	e, err := h.Env(h.t.Context(), key(name), wheels, h.py, h.cas)
	require.NoError(h.t, err)
	return e
}

// run runs a command with a clean environment and returns what it printed.
func (h *host) run(command string, args ...string) string {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), command, args...)
	cmd.Env = []string{"HOME=" + h.home, "PATH=/usr/bin:/bin"}
	cmd.Dir = h.home
	out, err := cmd.CombinedOutput()
	require.NoError(h.t, err, "%s %q: %s", command, args, out)
	return strings.TrimSpace(string(out))
}

func (h *host) python(e *Env, code string) string {
	h.t.Helper()
	return h.run(e.Python(), "-c", code)
}

// list returns the names in one of the store's directories.
func (h *host) list(dir string) []string {
	h.t.Helper()
	entries, err := os.ReadDir(h.path(dir))
	require.NoError(h.t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func site(e *Env, elem ...string) string {
	return filepath.Join(append([]string{e.Dir, "lib", "python3.11", "site-packages"}, elem...)...)
}
