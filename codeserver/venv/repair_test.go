package venv

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// overwrite has a file hold as many bytes, which are others from its middle on.
func overwrite(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotEmpty(t, b)
	half := len(b) / 2
	require.NoError(t, os.WriteFile(path, append(b[:half:half], strings.Repeat("?", len(b)-half)...), 0o644))
}

// TestRepair damages each kind of file that an environment is made of: it is found, said, and made again.
func TestRepair(t *testing.T) {
	h := newHost(t)
	alpha, beta := h.alpha(), h.beta()
	wheels := []Wheel{alpha, beta}
	e := h.env("tree", wheels...)
	h.fill(h.pyCompile, wheels...)
	dir := h.path(wheelDir(alpha, "3.11"))
	for _, c := range []struct {
		what, file string
		harm       func(path string)
	}{
		{"alpha/__init__.py of " + alphaFile, filepath.Join(dir, "site/alpha/__init__.py"), nil},
		{"alpha/text.txt of " + alphaFile, filepath.Join(dir, "site/alpha/text.txt"), func(p string) { require.NoError(t, os.Remove(p)) }},
		{"alpha/text.txt of " + alphaFile, filepath.Join(dir, "site/alpha/text.txt"), func(p string) {
			b, err := os.ReadFile(p)
			require.NoError(t, err)
			other := filepath.Join(t.TempDir(), "other")
			require.NoError(t, errors.Join(os.WriteFile(other, b, 0o644), os.Remove(p), os.Symlink(other, p)))
		}},
		{"alpha_pkg-1.0.dist-info/RECORD of " + alphaFile, filepath.Join(dir, "site/alpha_pkg-1.0.dist-info/RECORD"), nil},
		{"alpha/__pycache__/__init__.cpython-311.pyc of " + alphaFile, filepath.Join(dir, "site/alpha/__pycache__/__init__.cpython-311.pyc"), nil},
		{"wheel.json of " + alphaFile, filepath.Join(dir, "wheel.json"), nil},
		{"alpha/__pycache__/__init__.cpython-311.pyc of " + alphaFile, filepath.Join(dir, "bytecode-files.json"), nil},
		{"alpha/__pycache__/other.pyc of " + alphaFile, filepath.Join(dir, "site/alpha/__pycache__/other.pyc"), func(p string) { require.NoError(t, os.WriteFile(p, nil, 0o644)) }},
		{"bin/beta-shell of " + betaFile, h.path(wheelDir(beta, "3.11"), "bin", "beta-shell"), nil},
		{"pyvenv.cfg of the environment", filepath.Join(e.Dir, "pyvenv.cfg"), nil},
		{"env.json of the environment", filepath.Join(e.Dir, "env.json"), nil},
		{"bin/beta-script of the environment", filepath.Join(e.Dir, "bin", "beta-script"), nil},
		{"lib/python3.11/site-packages/single.py of the environment", site(e, "single.py"), func(p string) {
			require.NoError(t, errors.Join(os.Remove(p), os.WriteFile(p, []byte("ONE = 2\n"), 0o644)))
		}},
	} {
		before := h.Repairs()
		if c.harm == nil {
			c.harm = func(p string) { overwrite(t, p) }
		}
		c.harm(c.file)
		damaged, err := h.Repair(t.Context(), key("tree"), wheels, h.py, h.cas)
		require.NoError(t, err, c.what)
		require.Equal(t, []string{c.what}, damaged)
		require.Greater(t, h.Repairs(), before)
		h.fill(h.pyCompile, wheels...)
		damaged, err = h.Repair(t.Context(), key("tree"), wheels, h.py, h.cas)
		require.NoError(t, err)
		require.Empty(t, damaged, "after %s", c.what)
		require.Equal(t, "alpha beta 1", h.python(e, "import beta, single; print(beta.NAME, single.ONE)"), c.what)
		require.Equal(t, "alpha beta 1", h.run(filepath.Join(e.Dir, "bin", "beta-script")))
		require.Equal(t, "shell", h.run(filepath.Join(e.Dir, "bin", "beta-shell")))
		require.Empty(t, h.list("tmp"))
	}
}

// TestRepairWithoutTheWheel says what is damaged, and takes nothing away: it may do for others.
func TestRepairWithoutTheWheel(t *testing.T) {
	h := newHost(t)
	alpha := h.alpha()
	e := h.env("tree", alpha)
	overwrite(t, site(e, "alpha", "text.txt"))
	damaged, err := h.Repair(t.Context(), key("tree"), []Wheel{alpha}, h.py, memory.New())
	require.ErrorContains(t, err, "alpha/text.txt of "+alphaFile+" is damaged on this host, and cannot be unpacked again: wheel "+alphaFile+": ")
	require.Equal(t, []string{"alpha/text.txt of " + alphaFile}, damaged)
	require.Equal(t, "alpha", h.python(h.env("tree", alpha), "import alpha; print(alpha.NAME)"))
	require.Empty(t, h.list("tmp"))
	damaged, err = h.Repair(t.Context(), key("tree"), []Wheel{alpha}, h.py, h.cas)
	require.NoError(t, err)
	require.Len(t, damaged, 1)
}

// TestRepairWhole leaves alone what is as it was unpacked: what RECORD lists need not be in the wheel, nor have a hash.
func TestRepairWhole(t *testing.T) {
	h := newHost(t)
	w := h.wheel("gamma-1-py3-none-any.whl",
		file{name: "gamma.py", content: "X = 1\n", record: "gamma.py,,\nnot/there.py,,\n__pycache__/gamma.cpython-311.pyc,,"})
	e := h.env("tree", w)
	h.python(e, "import gamma") // writes bytecode
	before, err := os.Stat(site(e, "gamma.py"))
	require.NoError(t, err)
	damaged, err := h.Repair(t.Context(), key("tree"), []Wheel{w}, h.py, h.cas)
	require.NoError(t, err)
	require.Equal(t, []string{"lib/python3.11/site-packages/__pycache__/gamma.cpython-311.pyc of the environment"}, damaged, "nobody vouches for that")
	damaged, err = h.Repair(t.Context(), key("tree"), []Wheel{w}, h.py, h.cas)
	require.NoError(t, err)
	require.Empty(t, damaged)
	after, err := os.Stat(site(e, "gamma.py"))
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after))
}

// TestRepairAtOnce: several that look at once repair what is damaged once, and none goes on with it, while an environment is made
// and versions run in the one that is repaired.
func TestRepairAtOnce(t *testing.T) {
	h := newHost(t)
	alpha, beta := h.alpha(), h.beta()
	wheels := []Wheel{alpha, beta}
	e := h.env("tree", wheels...)
	for range 20 {
		overwrite(t, site(e, "alpha", "text.txt"))
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				_, err := h.Repair(t.Context(), key("tree"), wheels, h.py, h.cas)
				require.NoError(t, err)
				b, err := os.ReadFile(site(e, "alpha", "text.txt"))
				require.NoError(t, err)
				require.Equal(t, "text", string(b))
				if i == 0 {
					h.env("another", wheels...)
				}
			})
		}
		wg.Go(func() { h.python(e, "import alpha, single") })
		wg.Wait()
		require.NoError(t, h.Keep(t.Context(), []digest.Digest{key("tree")}))
	}
	require.Empty(t, h.list("tmp"))
}
