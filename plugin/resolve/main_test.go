package resolve

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/plugin/fetch"
	"github.com/pexpress/pexpress/plugin/lock"
)

// state is the state directory that all tests share, so that uv is fetched once.
var state string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "pexpress-resolve")
	if err != nil {
		panic(err)
	}
	state = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// fetchUV brings uv, from the index that this machine's pip is configured with: the one thing that the tests need of the
// network, but for those that say so.
var fetchUV = sync.OnceValue(func() error {
	f, err := fetch.New(memory.New(), fetch.Options{StateDir: state})
	if err != nil {
		return err
	}
	_, err = tool(context.Background(), f, state)
	return err
})

// release is one wheel of an index.
type release struct {
	name, version  string
	requires       []string
	requiresPython string
}

func (r release) filename() string { return r.name + "-" + r.version + "-py3-none-any.whl" }

// wheel returns the wheel's bytes, the same each time.
func (r release) wheel() []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	info := r.name + "-" + r.version + ".dist-info/"
	meta := "Metadata-Version: 2.1\nName: " + r.name + "\nVersion: " + r.version + "\n"
	for _, req := range r.requires {
		meta += "Requires-Dist: " + req + "\n"
	}
	if r.requiresPython != "" {
		meta += "Requires-Python: " + r.requiresPython + "\n"
	}
	for _, m := range [][2]string{
		{r.name + ".py", "x = 1\n"},
		{info + "METADATA", meta},
		{info + "RECORD", ""},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
	} {
		if w, err := z.Create(m[0]); err == nil {
			_, _ = w.Write([]byte(m[1]))
		}
	}
	_ = z.Close()
	return b.Bytes()
}

// releases are what the index of the tests has.
var releases = []release{
	{name: "alpha", version: "1.0", requires: []string{"beta"}},
	{name: "alpha", version: "2.0", requires: []string{"beta"}},
	{name: "beta", version: "1.0"},
	{name: "beta", version: "2.0"},
	{name: "gamma", version: "1.0", requiresPython: ">=3.8"},
	{name: "gamma", version: "2.0", requiresPython: ">=3.12"},
	{name: "delta", version: "1.0", requires: []string{`beta ; sys_platform == "win32"`}},
}

// index serves the releases as PEP 503 and 691 say.
func index(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/simple/"), "/")
	var files []map[string]any
	for _, rel := range releases {
		data := rel.wheel()
		if r.URL.Path == "/files/"+rel.filename() {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			return
		}
		if rel.name == name {
			sum := sha256.Sum256(data)
			files = append(files, map[string]any{
				"filename": rel.filename(), "url": "/files/" + rel.filename(), "size": len(data),
				"hashes": map[string]string{"sha256": hex.EncodeToString(sum[:])}, "requires-python": rel.requiresPython,
			})
		}
	}
	if files == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"meta": map[string]string{"api-version": "1.0"}, "name": name, "files": files})
}

// isolate takes away what this machine configures pip and uv with, after uv is there.
func isolate(t *testing.T) {
	t.Helper()
	require.NoError(t, fetchUV())
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "PIP_") || strings.HasPrefix(name, "UV_") {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("NETRC", os.DevNull)
	t.Setenv("VIRTUAL_ENV", "")
	t.Setenv("UV_CACHE_DIR", filepath.Join(state, "uv-cache"))
}

// indexed makes pip's settings name an index that serves the releases.
func indexed(t *testing.T) {
	isolate(t)
	s := httptest.NewServer(http.HandlerFunc(index))
	t.Cleanup(s.Close)
	t.Setenv("PIP_INDEX_URL", s.URL+"/simple")
}

// project makes a directory of files.
func project(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// try locks; what uv says is at the end of the error.
func try(t *testing.T, r Request) ([]byte, error) {
	f, err := fetch.New(memory.New(), fetch.Options{StateDir: state})
	require.NoError(t, err)
	var said bytes.Buffer
	r.Fetcher, r.StateDir, r.Stderr = f, state, &said
	b, err := Lock(t.Context(), r)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, &said)
	}
	left, err := filepath.Glob(filepath.Join(state, ".lock*"))
	require.NoError(t, err)
	require.Empty(t, left)
	return b, nil
}

// locked locks and returns the wheels that the lock selects for CPython 3.11 on Linux.
func locked(t *testing.T, r Request, s lock.Selection) (string, []lock.Wheel) {
	t.Helper()
	b, err := try(t, r)
	require.NoError(t, err)
	return string(b), selected(t, b, s)
}

func selected(t *testing.T, b []byte, s lock.Selection) []lock.Wheel {
	t.Helper()
	l, err := lock.Parse(b)
	require.NoError(t, err)
	target, err := lock.ParseTarget("3.11", lock.DefaultPlatform)
	require.NoError(t, err)
	wheels, err := l.Select(target, s)
	require.NoError(t, err)
	return wheels
}

// names returns "NAME VERSION" of each wheel.
func names(wheels []lock.Wheel) []string {
	s := []string{}
	for _, w := range wheels {
		s = append(s, w.Name+" "+w.Version)
	}
	return s
}
