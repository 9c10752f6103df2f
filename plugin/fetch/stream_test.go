package fetch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// breaking sends no more than n bytes an answer, whatever it has announced.
func breaking(data string, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		content(data)(&cutting{w, n}, r)
		panic(http.ErrAbortHandler)
	}
}

// cutting passes on the first left bytes of an answer, and breaks it off.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	p = p[:min(len(p), c.left)]
	c.left -= len(p)
	n, err := c.ResponseWriter.Write(p)
	c.ResponseWriter.(http.Flusher).Flush()
	if err == nil && c.left == 0 {
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestGoesOnWhereItBroke(t *testing.T) {
	clean(t)
	data := "0123456789abcdef"
	r, url := serve(t, breaking(data, 7))
	var come atomic.Int64
	f := fetcher(t, Options{Progress: func(int, int64) (func(int64), func()) {
		return func(n int64) { come.Add(n) }, func() {}
	}})
	_, err := f.get(t.Context(), wheel(url, data))
	require.NoError(t, err)
	f.requireHas(t, data)
	require.Equal(t, []string{"/", "/ bytes=7-", "/ bytes=14-"}, r.asked)
	require.Equal(t, int64(16), come.Load())
}

func TestServerWithoutRanges(t *testing.T) {
	clean(t)
	data := "0123456789abcdef"
	var n atomic.Int32
	r, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		if n.Add(1) == 1 {
			breaking(data, 7)(w, r)
		}
		content(data)(w, r)
	})
	f := fetcher(t, Options{})
	_, err := f.get(t.Context(), wheel(url, data))
	require.NoError(t, err)
	f.requireHas(t, data)
	require.Equal(t, []string{"/", "/ bytes=7-"}, r.asked)
}

// TestGivesUp has connections that break before the first byte: an endless loop without a count of them.
func TestGivesUp(t *testing.T) {
	clean(t)
	for what, h := range map[string]http.HandlerFunc{
		"after the headers": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "16")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"before the headers": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(what, func(t *testing.T) {
			r, url := serve(t, h)
			f := fetcher(t, Options{})
			_, err := f.get(t.Context(), wheel(url, "0123456789abcdef"))
			require.ErrorContains(t, err, "w-1.0-py3-none-any.whl")
			require.NotErrorIs(t, err, ErrRefused, "trying again may help")
			require.LessOrEqual(t, r.n(), 2*(retries+1)) // package http may repeat a request of its own accord
		})
	}
}

func TestWrongRanges(t *testing.T) {
	clean(t)
	data := "0123456789abcdef"
	var n atomic.Int32
	_, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			breaking(data, 7)(w, r)
		}
		r.Header.Set("Range", "bytes=3-") // other bytes than were asked for
		content(data)(w, r)
	})
	f := fetcher(t, Options{})
	_, err := f.get(t.Context(), wheel(url, data))
	require.ErrorContains(t, err, "206")
	f.requireLacks(t, data)
}

// large is a content whose beginning is kept on disk.
var large = sync.OnceValue(func() string {
	b := make([]byte, keepFrom+12345)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(b); i++ {
		b[i] = byte(r.Uint32())
	}
	return string(b)
})

func part(state, data string) string { return filepath.Join(state, "downloads", sum(data)+".part") }

// TestLargeFilesSurviveTheirProcess ends a fetch in the middle and begins another.
func TestLargeFilesSurviveTheirProcess(t *testing.T) {
	clean(t)
	data, state := large(), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	r, url := serve(t, content(data))
	f := fetcher(t, Options{StateDir: state, Progress: func(int, int64) (func(int64), func()) {
		var come atomic.Int64
		return func(n int64) {
			if come.Add(n) > 8<<20 {
				cancel()
			}
		}, func() {}
	}})
	_, err := f.get(ctx, wheel(url, data))
	require.ErrorIs(t, err, context.Canceled)
	st, err := os.Stat(part(state, data))
	require.NoError(t, err)
	require.Greater(t, st.Size(), int64(8<<20-1))
	require.Less(t, st.Size(), int64(len(data)))

	var come atomic.Int64
	f = fetcher(t, Options{StateDir: state, Progress: func(int, int64) (func(int64), func()) {
		return func(n int64) { come.Add(n) }, func() {}
	}})
	_, err = f.get(t.Context(), wheel(url, data))
	require.NoError(t, err)
	f.requireHas(t, data)
	require.Equal(t, []string{"/", fmt.Sprintf("/ bytes=%d-", st.Size())}, r.asked)
	require.Equal(t, int64(len(data)), come.Load())
	require.NoFileExists(t, part(state, data))
}

func TestKeptBeginnings(t *testing.T) {
	clean(t)
	data := large()
	for what, c := range map[string]struct {
		kept  string
		asked []string
	}{
		"whole":    {data, []string{"/ bytes=" + strconv.Itoa(len(data)) + "-"}},
		"empty":    {"", []string{"/"}},
		"corrupt":  {"x" + data[1:1000], []string{"/ bytes=1000-", "/"}},
		"too long": {data + "x", []string{"/"}},
	} {
		t.Run(what, func(t *testing.T) {
			state := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Dir(part(state, data)), 0o700))
			require.NoError(t, os.WriteFile(part(state, data), []byte(c.kept), 0o600))
			r, url := serve(t, content(data))
			var come atomic.Int64
			f := fetcher(t, Options{StateDir: state, Progress: func(int, int64) (func(int64), func()) {
				return func(n int64) { come.Add(n) }, func() {}
			}})
			_, err := f.get(t.Context(), wheel(url, data))
			require.NoError(t, err)
			f.requireHas(t, data)
			require.Equal(t, c.asked, r.asked)
			require.Equal(t, int64(len(data)), come.Load(), "the progress adds up")
			require.NoFileExists(t, part(state, data))
		})
	}
}

func TestWrongLargeFileIsNotKept(t *testing.T) {
	clean(t)
	data, state := large(), t.TempDir()
	r, url := serve(t, content(strings.Repeat("x", len(data))))
	for n := range 2 {
		_, err := fetcher(t, Options{StateDir: state}).get(t.Context(), wheel(url, data))
		require.ErrorIs(t, err, ErrRefused)
		require.NoFileExists(t, part(state, data))
		require.Equal(t, n+1, r.n())
	}
}

// TestFailedStartLetsGo: the file that keeps a beginning stays locked otherwise, and the next try does without it.
func TestFailedStartLetsGo(t *testing.T) {
	clean(t)
	data := large()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector would close the file sooner or later
	_, gone := serve(t, status(404))
	_, url := serve(t, breaking(data, 1000))
	f := fetcher(t, Options{})
	_, err := f.get(t.Context(), wheel(gone, data))
	require.ErrorContains(t, err, "404")
	s, err := f.open(t.Context(), wheel(url, data), int64(len(data)))
	require.NoError(t, err)
	require.NotNil(t, s.kept)
	require.NoError(t, s.Close())
}

func TestTwoFetchersOfOneLargeFile(t *testing.T) {
	clean(t)
	data, state := large(), t.TempDir()
	_, url := serve(t, content(data))
	var wg sync.WaitGroup
	for range 2 {
		f := fetcher(t, Options{StateDir: state})
		wg.Go(func() {
			if _, err := f.get(t.Context(), wheel(url, data)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoFileExists(t, part(state, data))
}
