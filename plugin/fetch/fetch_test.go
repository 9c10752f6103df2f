package fetch

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/plugin/lock"
)

func TestFetchesInParallel(t *testing.T) {
	clean(t)
	r, url := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "wheel "+r.URL.Path) })
	var files int
	var total int64
	var come atomic.Int64
	done := 0
	f := fetcher(t, Options{Progress: func(n int, bytes int64) (func(int64), func()) {
		files, total = files+n, total+bytes
		return func(n int64) { come.Add(n) }, func() { done++ }
	}})
	var wheels []lock.Wheel
	for i := range 50 {
		path := fmt.Sprint("/", i)
		wheels = append(wheels, wheel(url+path, "wheel "+path))
	}
	stats, err := f.get(t.Context(), wheels...)
	require.NoError(t, err)
	require.Equal(t, Stats{50, total}, stats)
	require.Equal(t, 50, files)
	require.Equal(t, total, come.Load(), "the progress adds up")
	require.Equal(t, 1, done)
	for i := range 50 {
		f.requireHas(t, fmt.Sprint("wheel /", i))
	}
	require.Equal(t, 50, r.n())

	stats, err = f.get(t.Context(), wheels...)
	require.NoError(t, err)
	require.Zero(t, stats)
	require.Equal(t, 50, r.n(), "what is there is not fetched")
	require.Equal(t, 1, done, "and is no work to show")
}

func TestOtherContentIsRefused(t *testing.T) {
	clean(t)
	_, url := serve(t, content("what the server has"))
	for what, want := range map[string]string{
		"the same size": "What the server has", "shorter": "what", "longer": "what the server has, and more",
	} {
		t.Run(what, func(t *testing.T) {
			f := fetcher(t, Options{})
			_, err := f.get(t.Context(), wheel(url, want))
			require.ErrorIs(t, err, ErrRefused)
			require.ErrorIs(t, err, digest.ErrMismatch)
			require.ErrorContains(t, err, "w-1.0-py3-none-any.whl")
			f.requireLacks(t, want, "what the server has")
		})
	}
	w := wheel(url, "x")
	w.SHA256 = "zz"
	_, err := fetcher(t, Options{}).get(t.Context(), w)
	require.ErrorIs(t, err, ErrRefused)
}

func TestStatuses(t *testing.T) {
	clean(t)
	for code, c := range map[int]struct {
		says     string
		requests int
	}{
		401: {"credentials", 1},
		403: {"credentials", 1},
		407: {"credentials", 1},
		404: {"pexpress lock", 1},
		410: {"pexpress lock", 1},
		400: {"400 Bad Request", 1},
		501: {"501 Not Implemented", 1},
		500: {"500 Internal Server Error", retries + 1},
		503: {"503 Service Unavailable", retries + 1},
		429: {"429 Too Many Requests", retries + 1},
	} {
		r, url := serve(t, status(code))
		_, err := fetcher(t, Options{}).get(t.Context(), wheel(url, "data"))
		require.ErrorContains(t, err, c.says)
		require.ErrorContains(t, err, strings.TrimPrefix(url, "http://"), "it names the host")
		require.ErrorContains(t, err, "w-1.0-py3-none-any.whl")
		require.Equal(t, c.requests, r.n(), "%d", code)
	}
}

func TestServerThatRecovers(t *testing.T) {
	clean(t)
	var n atomic.Int32
	_, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) <= retries {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		content("data")(w, r)
	})
	f := fetcher(t, Options{})
	_, err := f.get(t.Context(), wheel(url, "data"))
	require.NoError(t, err)
	f.requireHas(t, "data")
}

func TestNobodyAnswers(t *testing.T) {
	clean(t)
	_, err := fetcher(t, Options{}).get(t.Context(), wheel("http://user:secret@127.0.0.1:1/w.whl", "data"))
	require.ErrorContains(t, err, "w-1.0-py3-none-any.whl")
	require.NotContains(t, err.Error(), "secret")
	_, err = fetcher(t, Options{}).get(t.Context(), wheel("http://user:secret@host:port/w.whl", "data"))
	require.ErrorIs(t, err, ErrRefused)
	require.NotContains(t, err.Error(), "secret")
}

func TestLocalWheels(t *testing.T) {
	clean(t)
	path := filepath.Join(t.TempDir(), "w with space.whl")
	require.NoError(t, os.WriteFile(path, []byte("data"), 0o600))
	byPath := wheel("", "data")
	byPath.Path = path
	byURL := wheel("file://"+strings.ReplaceAll(path, " ", "%20"), "data")
	for _, w := range []lock.Wheel{byPath, byURL} {
		f := fetcher(t, Options{})
		_, err := f.get(t.Context(), w)
		require.NoError(t, err)
		f.requireHas(t, "data")

		w.Size, w.SHA256 = 0, ""
		f = fetcher(t, Options{})
		_, err = f.get(t.Context(), w)
		require.NoError(t, err)
		f.requireHas(t, "data")
	}
	for _, w := range []lock.Wheel{byPath, byURL} {
		w.SHA256 = sum("other")
		_, err := fetcher(t, Options{}).get(t.Context(), w)
		require.ErrorIs(t, err, ErrRefused)
	}
	gone := byPath
	gone.Path += ".gone"
	_, err := fetcher(t, Options{}).get(t.Context(), gone)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorIs(t, err, os.ErrNotExist)

	_, url := serve(t, content("data"))
	gone.URL = url
	f := fetcher(t, Options{})
	_, err = f.get(t.Context(), gone)
	require.NoError(t, err, "the URL is taken where the path leads nowhere")
	f.requireHas(t, "data")
}
