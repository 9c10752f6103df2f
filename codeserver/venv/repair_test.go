package venv

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// overwrite has a file hold as many bytes, which are others from its middle on, and leaves its time as it was.
func overwrite(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotEmpty(t, b)
	half := len(b) / 2
	require.NoError(t, os.WriteFile(path, append(b[:half:half], strings.Repeat("?", len(b)-half)...), 0o644))
	require.NoError(t, os.Chtimes(path, st.ModTime(), st.ModTime()))
}

// repair repairs an environment as if nothing were known of it, and returns what was made again.
func (h *host) repair(name string, wheels ...Wheel) []string {
	h.t.Helper()
	h.lookAgain = 0
	made, err := h.Repair(h.t.Context(), key(name), wheels, h.py, h.cas, time.Now())
	require.NoError(h.t, err)
	return made
}

// TestRepair damages each kind of file that an environment is made of: it is found, said, and made again.
func TestRepair(t *testing.T) {
	h := newHost(t)
	alpha, beta := h.alpha(), h.beta()
	wheels := []Wheel{alpha, beta}
	e := h.env("tree", wheels...)
	h.fill(h.pyCompile, wheels...)
	dir := h.path(wheelDir(alpha, "3.11"))
	bytecode := filepath.Join(dir, "site/alpha/__pycache__/__init__.cpython-311.pyc")
	text := filepath.Join(dir, "site/alpha/text.txt")
	remove := func(p string) { require.NoError(t, os.Remove(p)) }
	fifo := func(p string) { require.NoError(t, errors.Join(os.Remove(p), unix.Mkfifo(p, 0o644))) }
	directory := func(p string) {
		require.NoError(t, errors.Join(os.RemoveAll(p), os.Mkdir(p, 0o755), os.WriteFile(filepath.Join(p, "x.pyc"), nil, 0o644)))
	}
	for _, c := range []struct {
		what, file string
		harm       func(path string)
	}{
		{"alpha/__init__.py of " + alphaFile, filepath.Join(dir, "site/alpha/__init__.py"), nil},
		{"alpha/text.txt of " + alphaFile, text, remove},
		{"alpha/text.txt of " + alphaFile, text, func(p string) { require.NoError(t, os.Chmod(p, 0o600)) }},
		{"alpha/text.txt of " + alphaFile, text, fifo},
		{"wheel.json of " + alphaFile, filepath.Join(dir, "wheel.json"), fifo},
		{"env.json of the environment", filepath.Join(e.Dir, "env.json"), fifo},
		{"alpha of " + alphaFile, filepath.Join(dir, "site/alpha"), func(p string) { require.NoError(t, os.Chmod(p, 0o700)) }},
		{". of " + alphaFile, dir, func(p string) { require.NoError(t, os.Chmod(p, 0o700)) }},
		{"alpha/text.txt of " + alphaFile, text, func(p string) { require.NoError(t, os.Truncate(p, 1<<40)) }},
		{"alpha/text.txt of " + alphaFile, text, func(p string) {
			other := filepath.Join(t.TempDir(), "other")
			require.NoError(t, errors.Join(os.Rename(p, other), os.Symlink(other, p)))
		}},
		{"alpha_pkg-1.0.dist-info/RECORD of " + alphaFile, filepath.Join(dir, "site/alpha_pkg-1.0.dist-info/RECORD"), nil},
		{"alpha/__pycache__/__init__.cpython-311.pyc of " + alphaFile, bytecode, nil},
		{"alpha/__pycache__/__init__.cpython-311.pyc of " + alphaFile, bytecode, fifo},
		{"wheel.json of " + alphaFile, filepath.Join(dir, "wheel.json"), nil},
		{"wheel.json of " + alphaFile, filepath.Join(dir, "wheel.json"), func(p string) {
			b, err := os.ReadFile(p)
			require.NoError(t, err)
			require.Contains(t, string(b), `"attr":"main"`)
			require.NoError(t, os.WriteFile(p, []byte(strings.Replace(string(b), `"attr":"main"`, `"attr":"lain"`, 1)), 0o644))
		}},
		{"bin/beta-shell of " + betaFile, h.path(wheelDir(beta, "3.11"), "bin", "beta-shell"), nil},
		{"pyvenv.cfg of the environment", filepath.Join(e.Dir, "pyvenv.cfg"), nil},
		{"pyvenv.cfg of the environment", filepath.Join(e.Dir, "pyvenv.cfg"), func(p string) { require.NoError(t, os.Truncate(p, 0)) }},
		{"env.json of the environment", filepath.Join(e.Dir, "env.json"), nil},
		{"bin/beta-shell of " + betaFile, h.path(wheelDir(beta, "3.11"), "bin", "beta-shell"), func(p string) { require.NoError(t, os.Chmod(p, 0o644)) }},
		{"bin/beta-script of the environment", filepath.Join(e.Dir, "bin", "beta-script"), nil},
		{"bin/beta-script of the environment", filepath.Join(e.Dir, "bin", "beta-script"), func(p string) { require.NoError(t, os.Chmod(p, 0o644)) }},
		{"beta_tool of " + betaFile, h.path(wheelDir(beta, "3.11"), "site", "beta_tool"), func(p string) { require.NoError(t, os.Chmod(p, 0o644)) }},
		{"lib64 of the environment", filepath.Join(e.Dir, "lib64"), remove},
		{"lib/python3.11/site-packages/single.py of the environment", site(e, "single.py"), func(p string) {
			require.NoError(t, errors.Join(os.Remove(p), os.WriteFile(p, []byte("ONE = 2\n"), 0o644)))
		}},
		// What keeps nothing from running is made again without a word, and what versions add stays.
		{"", site(e, "__pycache__/single.cpython-311.pyc"), fifo},
		{"", site(e, "__pycache__/single.cpython-311.pyc"), remove},
		{"", h.path(wheelDir(beta, "3.11"), "site", "cache.db"), func(p string) { require.NoError(t, os.WriteFile(p, nil, 0o644)) }},
		{"", bytecode, remove},
		{"", filepath.Join(dir, "bytecode-files.json"), nil},
		{"", filepath.Join(dir, "bytecode-files.json"), fifo},
		{"", filepath.Join(dir, "bytecode-files.json"), directory},
		{"", filepath.Join(dir, "bytecode.json"), fifo},
		{"", filepath.Join(dir, "bytecode.json"), directory},
		{"", bytecode, directory},
		{"", filepath.Dir(bytecode), directory},
		{"", filepath.Join(dir, "site/alpha/__pycache__/other.pyc"), func(p string) { require.NoError(t, os.WriteFile(p, nil, 0o644)) }},
		{"", filepath.Join(dir, "site/alpha/__pycache__"), func(p string) {
			require.NoError(t, errors.Join(os.RemoveAll(p), os.Symlink("/etc", p)))
		}},
	} {
		if c.harm == nil {
			c.harm = func(p string) { overwrite(t, p) }
		}
		c.harm(c.file)
		made := h.repair("tree", wheels...)
		if c.what == "" {
			require.Empty(t, made, c.file)
		} else {
			require.Equal(t, []string{c.what}, made)
		}
		h.fill(h.pyCompile, wheels...)
		require.Empty(t, h.repair("tree", wheels...), "after %s", c.file)
		require.Empty(t, h.NoBytecode(wheels, h.py))
		require.Contains(t, h.loaded(e, "import alpha"), "code object from '"+site(e, "alpha/__pycache__/__init__.cpython-311.pyc")+"'")
		require.Equal(t, "alpha beta 1", h.python(e, "import beta, single; print(beta.NAME, single.ONE)"), c.what)
		require.Equal(t, "alpha beta 1", h.run(filepath.Join(e.Dir, "bin", "beta-script")))
		require.Equal(t, "shell", h.run(filepath.Join(e.Dir, "bin", "beta-shell")))
		require.NoFileExists(t, filepath.Join(dir, "site/alpha/__pycache__/other.pyc"))
		require.Contains(t, h.loaded(e, "import single"), "code object from '"+site(e, "__pycache__/single.cpython-311.pyc")+"'")
		require.Empty(t, h.list("tmp"))
	}
}

// TestRepairKnown: what was read and found whole is not read again soon, unless it looks as if it were written since.
func TestRepairKnown(t *testing.T) {
	h := newHost(t)
	alpha := h.alpha()
	e := h.env("tree", alpha)
	repair := func() []string {
		made, err := h.Repair(t.Context(), key("tree"), []Wheel{alpha}, h.py, h.cas, time.Now())
		require.NoError(t, err)
		return made
	}
	overwrite(t, site(e, "alpha", "text.txt"))
	require.Empty(t, repair(), "it was unpacked a moment ago")
	require.NoError(t, os.Chtimes(site(e, "alpha", "text.txt"), time.Now(), time.Now()))
	require.Equal(t, []string{"alpha/text.txt of " + alphaFile}, repair())
	overwrite(t, site(e, "alpha", "text.txt"))
	require.Empty(t, repair())
	require.Equal(t, []string{"alpha/text.txt of " + alphaFile}, h.repair("tree", alpha), "after a while")
}

// TestRepairWithoutTheWheel says what is damaged, and takes nothing away: it may do for others.
func TestRepairWithoutTheWheel(t *testing.T) {
	h := newHost(t)
	alpha := h.alpha()
	e := h.env("tree", alpha)
	overwrite(t, site(e, "alpha", "text.txt"))
	h.lookAgain = 0
	made, err := h.Repair(t.Context(), key("tree"), []Wheel{alpha}, h.py, memory.New(), time.Now())
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, "alpha/text.txt of "+alphaFile+": it is damaged on this host, and its wheel cannot be unpacked again: wheel "+alphaFile+": ")
	require.Empty(t, made)
	require.NoError(t, os.Remove(filepath.Join(e.Dir, "lib64")))
	made, err = h.Repair(t.Context(), key("tree"), []Wheel{alpha}, h.py, memory.New(), time.Now())
	require.ErrorIs(t, err, ErrDamaged)
	require.Equal(t, []string{"lib64 of the environment"}, made, "what can be made again is")
	err = h.Fill(t.Context(), []Wheel{alpha}, h.py, 1, h.pyCompile)
	require.ErrorContains(t, err, "alpha/text.txt of "+alphaFile+" is not as it was unpacked")
	require.Len(t, h.NoBytecode([]Wheel{alpha}, h.py), 1)
	require.Equal(t, "alpha", h.python(h.env("tree", alpha), "import alpha; print(alpha.NAME)"))
	require.Empty(t, h.list("tmp"))
	require.Len(t, h.repair("tree", alpha), 1)
}

// TestRepairWhole leaves alone what is as it was unpacked: what RECORD lists need not be in the wheel, nor have a hash, and a wheel
// may come with what looks like bytecode. What an interpreter has written is removed without a word.
func TestRepairWhole(t *testing.T) {
	h := newHost(t)
	w := h.wheel("gamma-1-py3-none-any.whl",
		file{name: "gamma.py", content: "X = 1\n", record: "gamma.py,,\nnot/there.py,,\n__pycache__/gamma.cpython-311.pyc,,"},
		file{name: "delta/__init__.py", content: "X = 2\n"},
		file{name: "delta/__pycache__/table.dat", content: "table"}, file{name: "delta/__pycache__/gone.cpython-311.pyc", content: "bytecode"})
	e := h.env("tree", w)
	h.python(e, "import gamma, delta")
	written := []string{site(e, "__pycache__/gamma.cpython-311.pyc"), site(e, "delta/__pycache__/__init__.cpython-311.pyc")}
	for _, p := range written {
		st, err := os.Lstat(p)
		require.NoError(t, err)
		require.True(t, st.Mode().IsRegular())
	}
	before, err := os.Stat(site(e, "gamma.py"))
	require.NoError(t, err)
	require.Empty(t, h.repair("tree", w))
	for _, p := range written {
		_, err := os.Stat(p)
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	after, err := os.Stat(site(e, "gamma.py"))
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after))
	require.FileExists(t, site(e, "delta/__pycache__/table.dat"))
	require.FileExists(t, site(e, "delta/__pycache__/gone.cpython-311.pyc"))
	h.fill(h.pyCompile, w)
	require.Contains(t, h.loaded(e, "import gamma"), "code object from '"+written[0]+"'", "the link is there again")

	require.NoError(t, os.WriteFile(site(e, "delta/__pycache__/table.dat"), []byte("other"), 0o644))
	require.Equal(t, []string{"delta/__pycache__/table.dat of gamma-1-py3-none-any.whl"}, h.repair("tree", w))
}

// TestRepairInUse repairs what is in use: several that look at once, an environment that is made of the same wheels, one that is
// not needed any more, and a version that reads.
func TestRepairInUse(t *testing.T) {
	h := newHost(t)
	h.lookAgain = 0
	wheels := []Wheel{h.alpha(), h.beta()}
	e := h.env("tree", wheels...)
	ctx, cancel := context.WithCancel(t.Context())
	var reader sync.WaitGroup
	reader.Go(func() {
		for ctx.Err() == nil {
			_, err := os.ReadFile(site(e, "alpha", "__init__.py"))
			assert.NoError(t, err, "it is there at every moment")
		}
	})
	for range 20 {
		since := time.Now()
		overwrite(t, site(e, "alpha", "text.txt"))
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				made, err := h.Repair(t.Context(), key("tree"), wheels, h.py, h.cas, since)
				assert.NoError(t, err)
				assert.Equal(t, []string{"alpha/text.txt of " + alphaFile}, made, "whoever has found it")
				b, err := os.ReadFile(site(e, "alpha", "text.txt"))
				assert.NoError(t, err)
				assert.Equal(t, "text", string(b))
				if i == 0 {
					_, err := h.Env(t.Context(), key("another"), wheels, h.py, h.cas)
					assert.NoError(t, err)
				}
			})
		}
		wg.Wait()
		require.NoError(t, h.Keep(t.Context(), []digest.Digest{key("tree")}))
	}
	cancel()
	reader.Wait()
	require.Empty(t, h.list("tmp"))
}

// TestFillDuringRepair: bytecode that was made of a damaged module is not that of the one that is unpacked again.
func TestFillDuringRepair(t *testing.T) {
	h := newHost(t)
	alpha := h.alpha()
	e := h.env("tree", alpha)
	module := site(e, "alpha", "__init__.py")
	h.fill(func(ctx context.Context, w Wheel, siteDir, out string, modules []string) ([]string, error) {
		assert.NoError(t, os.WriteFile(module, []byte("NAME = 'damaged'\n"), 0o644))
		skipped, err := h.pyCompile(ctx, w, siteDir, out, modules)
		h.lookAgain = 0
		made, rerr := h.Repair(ctx, key("tree"), []Wheel{alpha}, h.py, h.cas, time.Now())
		assert.NoError(t, rerr)
		assert.Len(t, made, 1)
		return skipped, err
	}, alpha)
	require.Equal(t, "alpha", h.python(e, "import alpha; print(alpha.NAME)"))
	require.Len(t, h.NoBytecode([]Wheel{alpha}, h.py), 1)
	require.Empty(t, h.list("tmp"))
}

// TestPublishOverWhatStays: what cannot be removed of what stood there before is left to the next Open, and is not put back.
func TestPublishOverWhatStays(t *testing.T) {
	h := newHost(t)
	alpha := h.alpha()
	e := h.env("tree", alpha)
	stays := h.path(wheelDir(alpha, "3.11"), "site", "alpha", "stays")
	require.NoError(t, os.Mkdir(stays, 0o755))
	if err := unix.Mount("none", stays, "tmpfs", 0, ""); err != nil {
		t.Skip("needs to mount a file system: ", err)
	}
	t.Cleanup(func() {
		left, _ := filepath.Glob(h.path("tmp/*/site/alpha/stays"))
		for _, p := range append(left, stays) {
			_ = unix.Unmount(p, unix.MNT_DETACH)
		}
	})
	overwrite(t, site(e, "alpha", "text.txt"))
	require.Len(t, h.repair("tree", alpha), 1)
	for range 3 {
		h.env("another", alpha)
		require.Empty(t, h.repair("tree", alpha))
		b, err := os.ReadFile(site(e, "alpha", "text.txt"))
		require.NoError(t, err)
		require.Equal(t, "text", string(b))
	}
}

// TestRepairCalledOff ends with its context.
func TestRepairCalledOff(t *testing.T) {
	h := newHost(t)
	alpha := h.alpha()
	h.env("tree", alpha)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.Repair(ctx, key("tree"), []Wheel{alpha}, h.py, h.cas, time.Now())
	require.ErrorIs(t, err, context.Canceled)
}

// TestRepairUnreadable unpacks a wheel again, whose wheel.json is damaged, for an environment and in a repair at once: neither goes
// on with what is damaged.
func TestRepairUnreadable(t *testing.T) {
	h := newHost(t)
	wheels := []Wheel{h.alpha(), h.beta()}
	h.env("tree", wheels...)
	for range 30 {
		require.NoError(t, os.WriteFile(h.path(wheelDir(wheels[0], "3.11"), "wheel.json"), []byte("{}"), 0o644))
		var both sync.WaitGroup
		both.Go(func() {
			_, err := h.Env(t.Context(), key("another"), wheels, h.py, h.cas)
			assert.NoError(t, err)
		})
		both.Go(func() {
			_, err := h.Repair(t.Context(), key("tree"), wheels, h.py, h.cas, time.Now())
			assert.NoError(t, err)
		})
		both.Wait()
		require.Empty(t, h.damaged)
		require.NoError(t, h.Keep(t.Context(), []digest.Digest{key("tree")}))
	}
	require.Empty(t, h.list("tmp"))
}
