package fetch

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// private serves data to joe alone.
func private(data string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "joe" || password != "s3cret/@" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		content(data)(w, r)
	}
}

// withUser puts joe's credentials into a URL.
func withUser(url string) string { return strings.Replace(url, "://", "://joe:s3cret%2F%40@", 1) }

func file(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestCredentials(t *testing.T) {
	for what, configure := range map[string]func(t *testing.T, url string){
		"PIP_INDEX_URL":       func(t *testing.T, url string) { t.Setenv("PIP_INDEX_URL", withUser(url)+"/simple") },
		"PIP_EXTRA_INDEX_URL": func(t *testing.T, url string) { t.Setenv("PIP_EXTRA_INDEX_URL", "http://other.invalid "+withUser(url)) },
		"PIP_FIND_LINKS":      func(t *testing.T, url string) { t.Setenv("PIP_FIND_LINKS", withUser(url)+"/flat") },
		"UV_DEFAULT_INDEX":    func(t *testing.T, url string) { t.Setenv("UV_DEFAULT_INDEX", withUser(url)) },
		"UV_INDEX_URL":        func(t *testing.T, url string) { t.Setenv("UV_INDEX_URL", withUser(url)) },
		"UV_INDEX": func(t *testing.T, url string) {
			t.Setenv("UV_INDEX", "first=http://other.invalid/ corp="+withUser(url)+"/simple?a=b")
		},
		"UV_INDEX_CORP": func(t *testing.T, url string) {
			t.Setenv("UV_INDEX", "my-corp="+url)
			t.Setenv("UV_INDEX_MY_CORP_USERNAME", "joe")
			t.Setenv("UV_INDEX_MY_CORP_PASSWORD", "s3cret/@")
		},
		"uv.toml": func(t *testing.T, url string) {
			t.Setenv("UV_CONFIG_FILE", file(t, "uv.toml", "[[index]]\nname = \"corp\"\nurl = \""+withUser(url)+"\"\n"))
		},
		"pyproject.toml": func(t *testing.T, url string) {
			require.NoError(t, os.WriteFile("pyproject.toml", []byte("[[tool.uv.index]]\nname = \"corp\"\nurl = \""+url+"\"\n"), 0o600))
			t.Setenv("UV_INDEX_CORP_USERNAME", "joe")
			t.Setenv("UV_INDEX_CORP_PASSWORD", "s3cret/@")
		},
		"pip.conf": func(t *testing.T, url string) {
			t.Setenv("PIP_CONFIG_FILE", file(t, "pip.conf", "# comment\n[global]\nindex-url = "+withUser(url)+"/simple\n[freeze]\nall = x\n"))
		},
		"pip.conf with a colon and several lines": func(t *testing.T, url string) {
			t.Setenv("PIP_CONFIG_FILE", file(t, "pip.conf", "[install]\nextra_index_url:\n    http://other.invalid\n    "+withUser(url)+"\n"))
		},
		"~/.config/pip/pip.conf": func(t *testing.T, url string) {
			t.Setenv("PIP_CONFIG_FILE", "")
			require.NoError(t, os.MkdirAll(".config/pip", 0o700))
			require.NoError(t, os.WriteFile(".config/pip/pip.conf", []byte("[global]\nindex-url="+withUser(url)), 0o600))
		},
		"NETRC": func(t *testing.T, _ string) {
			t.Setenv("NETRC", file(t, "netrc", "machine other.invalid login a password b\nmachine 127.0.0.1 login joe password s3cret/@\n"))
		},
		"~/.netrc": func(t *testing.T, _ string) {
			require.NoError(t, os.WriteFile(".netrc", []byte("machine 127.0.0.1\n  login joe\n  password s3cret/@\n"), 0o600))
		},
	} {
		t.Run(what, func(t *testing.T) {
			clean(t)
			_, url := serve(t, private("data"))
			configure(t, url)
			f := fetcher(t, Options{})
			_, err := f.get(t.Context(), wheel(url+"/w.whl", "data"))
			require.NoError(t, err)
			f.requireHas(t, "data")
		})
	}
}

func TestCredentialsInTheLock(t *testing.T) {
	clean(t)
	t.Setenv("NETRC", file(t, "netrc", "machine 127.0.0.1 login other password other\n"))
	_, url := serve(t, private("data"))
	_, err := fetcher(t, Options{}).get(t.Context(), wheel(withUser(url)+"/w.whl", "data"))
	require.NoError(t, err, "those of the URL come first")
}

func TestCredentialsStayWithTheirHost(t *testing.T) {
	clean(t)
	_, index := serve(t, private("data"))
	t.Setenv("PIP_INDEX_URL", withUser(index))
	// Another port is another host, as far as passwords go.
	other, url := serve(t, content("data"))
	f := fetcher(t, Options{})
	_, err := f.get(t.Context(), wheel(url, "data"))
	require.NoError(t, err)
	require.Equal(t, []string{""}, other.auths)
}

func TestRedirects(t *testing.T) {
	clean(t)
	far, elsewhere := serve(t, content("data"))
	near, index := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, elsewhere+"/w.whl", http.StatusFound)
		case "/moved":
			http.Redirect(w, r, "/here", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		default:
			private("data")(w, r)
		}
	})
	t.Setenv("PIP_INDEX_URL", withUser(index))
	f := fetcher(t, Options{})
	_, err := f.get(t.Context(), wheel(index+"/away", "data"))
	require.NoError(t, err)
	require.Equal(t, []string{"joe:s3cret/@"}, near.auths)
	require.Equal(t, []string{""}, far.auths, "credentials do not follow to another host")

	_, err = fetcher(t, Options{}).get(t.Context(), wheel(index+"/moved", "data"))
	require.NoError(t, err, "but on the same host they do")
	_, err = fetcher(t, Options{}).get(t.Context(), wheel(withUser(index)+"/loop", "data"))
	require.ErrorContains(t, err, "redirected 10 times")
	require.NotContains(t, err.Error(), "s3cret")

	t.Setenv("PIP_EXTRA_INDEX_URL", withUser(elsewhere))
	_, err = fetcher(t, Options{}).get(t.Context(), wheel(index+"/away", "data"))
	require.NoError(t, err)
	require.Equal(t, "joe:s3cret/@", far.auths[len(far.auths)-1], "the other host gets what is configured for it")
}

// TestDowngrade: what is configured for https is not sent in the clear.
func TestDowngrade(t *testing.T) {
	clean(t)
	t.Setenv("PIP_INDEX_URL", withUser("https://Index.invalid:443/simple"))
	c, err := readConfig()
	require.NoError(t, err)
	ask := func(url string) string {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		require.NoError(t, err)
		c.authorize(req)
		return req.Header.Get("Authorization")
	}
	require.NotEmpty(t, ask("https://index.invalid/w.whl"))
	require.Empty(t, ask("http://index.invalid/w.whl"))
	require.Empty(t, ask("https://sub.index.invalid/w.whl"))
	require.Empty(t, ask("https://index.invalid:8443/w.whl"))

	from, err := http.NewRequest(http.MethodGet, "https://index.invalid/w.whl", nil)
	require.NoError(t, err)
	c.authorize(from)
	to, err := http.NewRequest(http.MethodGet, "http://index.invalid/w.whl", nil)
	require.NoError(t, err)
	to.Header = from.Header.Clone() // as package http does
	require.NoError(t, c.redirect(to, []*http.Request{from}))
	require.Empty(t, to.Header.Get("Authorization"))
}

func TestNoPasswordInErrors(t *testing.T) {
	clean(t)
	for _, h := range []http.HandlerFunc{status(401), status(404), status(500), content("other"), func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, withUser("http://127.0.0.1:1/x"), http.StatusFound)
	}} {
		_, url := serve(t, h)
		_, err := fetcher(t, Options{}).get(t.Context(), wheel(withUser(url), "data"))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "s3cret")
	}
	t.Setenv("PIP_CONFIG_FILE", file(t, "pip.conf", "[global]\nindex-url joe s3cret"))
	_, err := New(nil, Options{})
	require.ErrorContains(t, err, "line 2")
	require.NotContains(t, err.Error(), "s3cret")

	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	t.Setenv("PIP_PROXY", "http://joe:s3cret@host:port")
	_, err = fetcher(t, Options{}).get(t.Context(), wheel("http://x.invalid", "data"))
	require.ErrorContains(t, err, "proxy")
	require.NotContains(t, err.Error(), "s3cret")
}
