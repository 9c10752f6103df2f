package venv

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
)

func TestKeep(t *testing.T) {
	h := newHost(t)
	alpha, beta := h.alpha(), h.beta()
	gamma := h.wheel("gamma-1-py3-none-any.whl", file{name: "gamma.py"})
	one, two := h.env("one", alpha, beta), h.env("two", alpha, gamma)
	foreign := []string{h.path("envs", "README"), h.path("wheels", "README")}
	for _, f := range foreign {
		require.NoError(t, os.WriteFile(f, nil, 0o644))
	}
	gone := func(dir string) { t.Helper(); require.NoDirExists(t, dir) }
	unpackedIn := func(w Wheel) string { return h.path(wheelDir(w, "3.11")) }

	require.NoError(t, h.Keep(t.Context(), []digest.Digest{key("one"), key("two"), key("unknown")}))
	require.DirExists(t, one.Dir)
	require.DirExists(t, two.Dir)

	require.NoError(t, h.Keep(t.Context(), []digest.Digest{key("two")}))
	gone(one.Dir)
	gone(unpackedIn(beta))
	require.Equal(t, "alpha", h.python(two, "import alpha, gamma; print(alpha.NAME)"))

	// A damaged marker cannot say what is needed: nothing that may be needed goes.
	require.NoError(t, os.Remove(filepath.Join(two.Dir, "env.json")))
	require.ErrorContains(t, h.Keep(t.Context(), []digest.Digest{key("two")}), filepath.Base(two.Dir))
	require.DirExists(t, unpackedIn(gamma))

	// Nor does what a running Env holds.
	release := h.hold([]string{wheelDir(gamma, "3.11"), envDir(key("two"), "3.11")})
	require.NoError(t, h.Keep(t.Context(), nil))
	require.DirExists(t, two.Dir)
	require.DirExists(t, unpackedIn(gamma))
	gone(unpackedIn(alpha))
	release()
	require.Empty(t, h.busy)

	require.NoError(t, h.Keep(t.Context(), nil))
	gone(two.Dir)
	gone(unpackedIn(gamma))
	for _, f := range foreign {
		require.FileExists(t, f)
	}
	require.Empty(t, h.list("tmp"))
	require.Equal(t, "alpha", h.python(h.env("one", alpha, beta), "import alpha; print(alpha.NAME)"))
}
