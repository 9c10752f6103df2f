package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/plugin/lock"
)

// proxied counts what has come to the proxy that the environment names. Package http reads the environment once, so it
// is set for all tests; for servers on the loopback interface it does not hold.
var proxied = &recorder{handler: func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "by proxy: "+r.URL.String()) }}

func TestMain(m *testing.M) {
	proxy := httptest.NewServer(proxied)
	for _, name := range []string{"HTTP_PROXY", "http_proxy"} {
		os.Setenv(name, proxy.URL)
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		os.Unsetenv(name)
	}
	code := m.Run()
	proxy.Close()
	os.Exit(code)
}

// recorder is a server's handler that remembers what it was asked.
type recorder struct {
	handler http.HandlerFunc
	mu      sync.Mutex
	asked   []string // "PATH RANGE", without the space if there is no range
	auths   []string // "USER:PASSWORD", "" for none
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	auth := ""
	if user, password, ok := req.BasicAuth(); ok {
		auth = user + ":" + password
	}
	r.mu.Lock()
	r.asked = append(r.asked, strings.TrimSpace(req.URL.Path+" "+req.Header.Get("Range")))
	r.auths = append(r.auths, auth)
	r.mu.Unlock()
	r.handler(w, req)
}

// n returns how many requests there were.
func (r *recorder) n() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

// serve starts a server on the loopback interface.
func serve(t *testing.T, h http.HandlerFunc) (*recorder, string) {
	r := &recorder{handler: h}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return r, s.URL
}

// content serves one content, ranges included.
func content(data string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(data))
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// clean takes away what this machine configures pip and uv with.
func clean(t *testing.T) {
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "PIP_") || strings.HasPrefix(name, "UV_") {
			t.Setenv(name, "")
		}
	}
	for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC", "VIRTUAL_ENV", "ALL_PROXY"} {
		t.Setenv(name, "")
	}
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	t.Setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
	// Without its own HOME a shim of pyenv's does not find its interpreters.
	if root := os.Getenv("PYENV_ROOT"); root == "" {
		if home, err := os.UserHomeDir(); err == nil {
			t.Setenv("PYENV_ROOT", home+"/.pyenv")
		}
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home+"/.config")
	t.Chdir(home)
}

// tested is a Fetcher with its CAS; its pauses are short.
type tested struct {
	*Fetcher
	store *memory.Store
}

func fetcher(t *testing.T, opts Options) *tested {
	store := memory.New()
	if opts.StateDir == "" {
		opts.StateDir = t.TempDir() + "/state"
	}
	f, err := New(store, opts)
	require.NoError(t, err)
	f.backoff = time.Millisecond
	return &tested{f, store}
}

func sum(data string) string {
	s := sha256.Sum256([]byte(data))
	return hex.EncodeToString(s[:])
}

// wheel is the lock's entry for data at url.
func wheel(url, data string) lock.Wheel {
	return lock.Wheel{
		Name: "w", Version: "1.0", Filename: "w-1.0-py3-none-any.whl", URL: url, SHA256: sum(data), Size: int64(len(data)),
		Hashes: map[string]string{"sha256": sum(data)},
	}
}

// get resolves and fetches wheels.
func (f *tested) get(ctx context.Context, wheels ...lock.Wheel) (Stats, error) {
	ds, err := f.Resolve(ctx, wheels)
	if err != nil {
		return Stats{}, err
	}
	return f.Fetch(ctx, wheels, ds)
}

func (f *tested) requireHas(t *testing.T, data string) {
	t.Helper()
	r, err := f.store.Get(t.Context(), digest.FromBytes([]byte(data)))
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.True(t, data == string(got))
}

func (f *tested) requireLacks(t *testing.T, data ...string) {
	t.Helper()
	for _, s := range data {
		_, err := f.store.Get(t.Context(), digest.FromBytes([]byte(s)))
		require.ErrorIs(t, err, cache.ErrNotFound)
	}
}
