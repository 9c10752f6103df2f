package codeserver

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// harm writes over the only file that a pattern matches in the state directory, but for as much as bytecode's header is.
func (h *host) harm(pattern string) {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.opts.State, pattern))
	require.NoError(h.t, err)
	require.Len(h.t, found, 1, pattern)
	b, err := os.ReadFile(found[0])
	require.NoError(h.t, err)
	require.NoError(h.t, os.Chmod(found[0], 0o644))
	require.NoError(h.t, os.WriteFile(found[0], append(b[:16:16], strings.Repeat("?", len(b)-16)...), 0o644))
}

// withDep returns the spec of a web application that says what its dependency does.
func (h *host) withDep() *codeserverpb.VersionSpec {
	return h.spec(webApp("one"), func(s *codeserverpb.VersionSpec) {
		app := webApp("one")
		app["app/word.py"] = "from dep import WORD\n"
		s.SourceRoot = sourceTree(h.t, h.cas, app).Proto()
		w := wheel(h.t, "dep", member{name: "dep/__init__.py", content: "WORD = 'from the wheel'\n"})
		s.DepsRoot = depsTree(h.t, h.cas, map[string][]byte{"dep-1.0-py3-none-any.whl": w}).Proto()
	})
}

// TestDamagedDependency: what is damaged of a dependency is made again when a version does not come up, and it says so.
func TestDamagedDependency(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	d := h.deploy(h.withDep())
	const bytecode = "python/wheels/*/site/dep/__pycache__/*.pyc"
	only := func(pattern string) string {
		found, err := filepath.Glob(filepath.Join(h.opts.State, pattern))
		require.NoError(t, err)
		require.Len(t, found, 1, pattern)
		return found[0]
	}
	for _, c := range []struct{ pattern, said string }{
		{bytecode, "dep/__pycache__/__init__.cpython-311.pyc of dep-1.0-py3-none-any.whl"},
		{"python/envs/*/lib/python3.11/site-packages/dep", "lib/python3.11/site-packages/dep of the environment"},
		{"python/wheels/*/site/dep/__init__.py", "dep/__init__.py of dep-1.0-py3-none-any.whl"},
	} {
		eventually(t, func() bool {
			found, _ := filepath.Glob(filepath.Join(h.opts.State, "python/wheels/*/bytecode.json"))
			return len(found) == 1
		}, "its bytecode is made, again")
		h.s.zygotes.Wait() // one that is being made may write some, too
		switch {
		case strings.HasPrefix(c.pattern, "python/envs"):
			require.NoError(t, os.Remove(only(c.pattern)))
		case c.pattern != bytecode:
			require.NoError(t, os.Remove(only(bytecode))) // as long as it is there, nobody reads what it is of
			h.harm(c.pattern)
		default:
			h.harm(c.pattern)
		}
		h.restart()
		await(t, d.GetLocation().GetAddress(), "from the wheel")
		log, err := os.ReadFile(only("logs/*"))
		require.NoError(t, err)
		require.Contains(t, string(log), "of its dependencies were not as they were made, and are made again: "+c.said+"; it is started once more")
	}
}

// TestDamagedWithoutCache: as long as what is damaged cannot be had, the error says what it is.
func TestDamagedWithoutCache(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	h := newHost(t)
	h.close()
	h.opts.Open = func(context.Context) (cache.CAS, io.Closer, error) {
		if away.Load() {
			return nil, nil, errors.New("it is away")
		}
		return h.cas, io.NopCloser(nil), nil
	}
	h.open()
	spec := h.withDep()
	d := h.deploy(spec)
	found, err := filepath.Glob(filepath.Join(h.opts.State, "python/wheels/*"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	hash, _, _ := strings.Cut(filepath.Base(found[0]), "-")
	h.close()
	away.Store(true)
	h.harm("python/wheels/*/site/dep/__init__.py")
	require.NoError(t, os.RemoveAll(filepath.Join(found[0], "site", "dep", "__pycache__")))
	h.harm("store/blobs/cas/*/" + hash + "-*")
	h.open()
	eventually(t, func() bool { return h.version("web").GetState() == codeserverpb.State_FAILED }, "it does not come up")
	require.Regexp(t, `^dep/__init__.py of dep-1.0-py3-none-any.whl: it is damaged on this host, and its wheel cannot be unpacked again: .*it is away`, h.version("web").GetError())
	away.Store(false)
	h.deploy(spec)
	require.Equal(t, "from the wheel", h.get(d, "/"))
}
