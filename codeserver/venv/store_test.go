package venv

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

func TestConcurrent(t *testing.T) {
	h := newHost(t)
	wheels := []Wheel{h.alpha(), h.beta()}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			name := "tree"
			if i%5 == 0 {
				name = "another"
			}
			_, err := h.Env(t.Context(), key(name), wheels, h.py, h.cas)
			require.NoError(t, err)
		})
	}
	wg.Wait()
	require.EqualValues(t, 2, h.cas.gets.Load(), "each wheel is read once")
	require.Len(t, h.list("envs"), 2)
	require.Len(t, h.list("wheels"), 2)
	require.Empty(t, h.list("tmp"))
}

func TestFound(t *testing.T) {
	h := newHost(t)
	alpha := h.alpha()
	e := h.env("tree", alpha)
	note := filepath.Join(e.Dir, "note")
	again := func() bool { // reports whether it was made again
		require.NoError(t, os.WriteFile(note, nil, 0o644))
		require.Equal(t, e.Dir, h.env("tree", alpha).Dir)
		_, err := os.Stat(note)
		return err != nil
	}
	require.False(t, again(), "found")

	require.NoError(t, os.WriteFile(filepath.Join(e.Dir, "env.json"), []byte("{damaged"), 0o644))
	require.True(t, again(), "marker damaged")
	require.NoError(t, os.Truncate(filepath.Join(e.Dir, "pyvenv.cfg"), 0))
	require.True(t, again(), "its interpreter would import what the system has")
	require.NoError(t, os.Remove(filepath.Join(e.Dir, "bin", "python")))
	require.True(t, again(), "no interpreter")
	require.EqualValues(t, 1, h.cas.gets.Load())

	require.NoError(t, os.WriteFile(h.path(wheelDir(alpha, "3.11"), "wheel.json"), []byte("{}"), 0o644))
	h.env("another", alpha)
	require.EqualValues(t, 2, h.cas.gets.Load(), "wheel damaged")
	require.NoError(t, os.RemoveAll(h.path(wheelDir(alpha, "3.11"))))
	require.True(t, again(), "wheel gone")
	require.Equal(t, "alpha", h.python(e, "import alpha; print(alpha.NAME)"))

	release := *h.py
	release.FullVersion = "3.11.99"
	_, err := h.Env(t.Context(), key("tree"), []Wheel{alpha}, &release, h.cas)
	require.NoError(t, err)
	require.True(t, again(), "another release of Python")
	_, err = h.Env(t.Context(), key("tree"), []Wheel{h.beta()}, h.py, h.cas)
	require.NoError(t, err)
	require.True(t, again(), "other wheels")
	require.Empty(t, h.list("tmp"))
}

func TestAbsentWheel(t *testing.T) {
	h := newHost(t)
	beta, absent := h.beta(), Wheel{Filename: alphaFile, Digest: key("nobody has it")}
	_, err := h.Env(t.Context(), key("tree"), []Wheel{beta, absent}, h.py, h.cas)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.ErrorContains(t, err, alphaFile)
	require.Empty(t, h.list("envs"))
	e := h.env("tree", beta)
	require.FileExists(t, site(e, "single.py"))
	require.Empty(t, h.list("tmp"))
}

// TestKeepStaged deletes a wheel that was unpacked for an environment that could not be made.
func TestKeepStaged(t *testing.T) {
	h := newHost(t)
	beta := h.beta()
	require.NoError(t, h.stage(t.Context(), beta, wheelDir(beta, h.py.Version), h.cas))
	require.Len(t, h.list("tmp"), 1)
	require.NoError(t, h.Keep(t.Context(), nil))
	require.Empty(t, h.list("tmp"))
	require.FileExists(t, site(h.env("tree", beta), "single.py"))
}

func TestOpenRemovesWhatWasLeft(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "tmp", "wheel-1", "site"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tmp", "spool"), []byte("x"), 0o644))
	s, err := Open(dir)
	require.NoError(t, err)
	left, err := os.ReadDir(s.path("tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// stuckCAS answers the first Get only when its caller gives up.
type stuckCAS struct {
	cache.CAS
	first sync.Once
	stuck chan struct{}
}

func (c *stuckCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	c.first.Do(func() {
		close(c.stuck)
		<-ctx.Done()
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.CAS.Get(ctx, d)
}

func TestOneThatGivesUpLeavesOthersAlone(t *testing.T) {
	h := newHost(t)
	wheels := []Wheel{h.alpha()}
	cas := &stuckCAS{CAS: h.cas, stuck: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() {
		_, err := h.Env(ctx, key("tree"), wheels, h.py, cas)
		results <- err
	}()
	<-cas.stuck
	go func() {
		_, err := h.Env(t.Context(), key("tree"), wheels, h.py, cas)
		results <- err
	}()
	time.Sleep(20 * time.Millisecond) // most often the second waits for the first by now; the result is the same if not
	cancel()
	first, second := <-results, <-results
	if first == nil {
		first, second = second, first
	}
	require.ErrorIs(t, first, context.Canceled)
	require.NoError(t, second)
	require.Len(t, h.list("envs"), 1)
}
