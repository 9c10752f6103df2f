package fetch

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProxyOfTheEnvironment(t *testing.T) {
	clean(t)
	before := proxied.n()
	f := fetcher(t, Options{})
	_, err := f.get(t.Context(), wheel("http://index.invalid/env.whl", "by proxy: http://index.invalid/env.whl"))
	require.NoError(t, err)
	require.Equal(t, before+1, proxied.n())
}

func TestProxyOfPip(t *testing.T) {
	clean(t)
	r, url := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "pip's proxy: "+r.URL.String()) })
	for _, setting := range []string{url, strings.TrimPrefix(url, "http://")} {
		t.Setenv("PIP_PROXY", setting)
		f := fetcher(t, Options{})
		_, err := f.get(t.Context(), wheel("http://index.invalid/w.whl", "pip's proxy: http://index.invalid/w.whl"))
		require.NoError(t, err)
	}
	require.Equal(t, 2, r.n())
}

func TestCertificates(t *testing.T) {
	clean(t)
	s := httptest.NewUnstartedServer(content("data"))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	_, err := fetcher(t, Options{}).get(t.Context(), wheel(s.URL, "data"))
	require.ErrorContains(t, err, "certificate")
	ca := file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	for _, variable := range []string{"PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, ca)
			f := fetcher(t, Options{})
			_, err := f.get(t.Context(), wheel(s.URL, "data"))
			require.NoError(t, err)
			f.requireHas(t, "data")
		})
	}
	t.Setenv("PIP_CERT", file(t, "none.pem", "nothing"))
	_, err = fetcher(t, Options{}).get(t.Context(), wheel(s.URL, "data"))
	require.ErrorContains(t, err, "no certificate")
	t.Setenv("PIP_CERT", filepath.Join(t.TempDir(), "gone.pem"))
	_, err = fetcher(t, Options{}).get(t.Context(), wheel(s.URL, "data"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestUVEnv(t *testing.T) {
	clean(t)
	links := t.TempDir()
	require.NoError(t, os.Mkdir("wheels", 0o700))
	here, err := os.Getwd()
	require.NoError(t, err)
	t.Setenv("PIP_CONFIG_FILE", file(t, "pip.conf", strings.Join([]string{
		"[global]", "index-url = http://index.invalid/simple", "extra-index-url =", "  http://a.invalid", "  http://b.invalid",
		"cert = /ca.pem", "proxy = http://proxy.invalid", "find-links = " + links, "   /does/not/exist", "   wheels", "   http://flat.invalid/",
		"trusted-host = t.invalid", "no-index = yes",
	}, "\n")))
	f := fetcher(t, Options{})
	env := f.UVEnv()
	for _, want := range []string{
		"UV_DEFAULT_INDEX=http://index.invalid/simple", "UV_INDEX=http://a.invalid http://b.invalid", "SSL_CERT_FILE=/ca.pem",
		"ALL_PROXY=http://proxy.invalid", "UV_FIND_LINKS=" + links + "," + filepath.Join(here, "wheels") + ",http://flat.invalid/",
		"UV_INSECURE_HOST=t.invalid", "UV_PYTHON_DOWNLOADS=never",
	} {
		require.Contains(t, env, want)
	}
	require.Equal(t, []string{"--no-index"}, f.UVArgs())

	t.Setenv("UV_DEFAULT_INDEX", "http://uv.invalid")
	require.NotContains(t, strings.Join(f.UVEnv(), "\n"), "UV_DEFAULT_INDEX", "what uv is configured with comes first")

	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	f = fetcher(t, Options{})
	require.Equal(t, []string{"UV_PYTHON_DOWNLOADS=never", "UV_NO_PROGRESS=1"}, f.UVEnv())
	require.Empty(t, f.UVArgs())
}

func TestUVIndex(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "http://a.invalid/?x=y": "http://a.invalid/?x=y", "corp=http://a.invalid/": "http://a.invalid/",
	} {
		t.Setenv("UV_INDEX_URL", "")
		t.Setenv("UV_DEFAULT_INDEX", value)
		require.Equal(t, want, uvIndex())
		t.Setenv("UV_DEFAULT_INDEX", "")
		t.Setenv("UV_INDEX_URL", value)
		require.Equal(t, want, uvIndex())
	}
}

func TestBadConfigurationIsNamed(t *testing.T) {
	clean(t)
	t.Setenv("UV_CONFIG_FILE", file(t, "uv.toml", "index-url = [1"))
	_, err := New(nil, Options{})
	require.ErrorContains(t, err, "uv.toml")
}
