package venv

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const pyCompileAll = `import py_compile, sys
site, out, tag = sys.argv[1:4]
for m in sys.argv[4:]:
    d, _, name = ("/" + m).rpartition("/")
    to = out + d + "/__pycache__/" + name[:-3] + "." + tag + ".pyc"
    py_compile.compile(site + "/" + m, to, m, True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
`

// pyCompile is a Compile that has Python's own library do the work. A module with "bad" in its name is skipped.
func (h *host) pyCompile(_ context.Context, _ Wheel, siteDir, out string, modules []string) (skipped []string, err error) {
	args := []string{"-c", pyCompileAll, siteDir, out, h.py.Tag}
	for _, m := range modules {
		if strings.Contains(m, "bad") {
			skipped = append(skipped, m)
		} else {
			args = append(args, m)
		}
	}
	if b, err := exec.Command(h.py.Path, args...).CombinedOutput(); err != nil {
		return nil, errors.New(string(b))
	}
	return skipped, nil
}

func (h *host) fill(compile Compile, wheels ...Wheel) {
	h.t.Helper()
	require.NoError(h.t, h.Fill(h.t.Context(), wheels, h.py, 2, compile))
}

// loaded runs Python so that it writes no bytecode, and returns which of the environment's files it loaded.
func (h *host) loaded(e *Env, code string) string {
	h.t.Helper()
	return h.run(e.Python(), "-B", "-v", "-c", code)
}

func TestFill(t *testing.T) {
	h := newHost(t)
	alpha, beta := h.alpha(), h.beta()
	bad := h.wheel("gamma-1-py3-none-any.whl", file{name: "gamma/__init__.py"}, file{name: "gamma/bad.py", content: "print 'old'\n"}, file{name: "gamma/text.pyx"})
	wheels := []Wheel{alpha, beta, bad}
	e := h.env("tree", wheels...)
	require.Len(t, h.NoBytecode(wheels, h.py), 3)
	h.python(e, "import alpha") // writes some of its own, as versions do until there is some
	var calls atomic.Int64
	count := func(ctx context.Context, w Wheel, siteDir, out string, modules []string) ([]string, error) {
		calls.Add(1)
		return h.pyCompile(ctx, w, siteDir, out, modules)
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { h.fill(count, wheels...) })
	}
	both.Wait()
	h.fill(count, wheels...)
	require.EqualValues(t, 3, calls.Load(), "each wheel is compiled once, also when two ask for it, and a module that does not compile is remembered")
	require.Empty(t, h.NoBytecode(wheels, h.py))
	require.Empty(t, h.list("tmp"))

	out := h.loaded(e, "import alpha, beta, single, space.a, space.b, space.both.a, gamma; print(beta.NAME)")
	for _, m := range []string{"alpha/__init__", "beta/__init__", "single", "space/a", "space/b", "space/both/a", "gamma/__init__"} {
		dir, name := filepath.Split(site(e, filepath.FromSlash(m)))
		require.Contains(t, out, "code object from '"+filepath.Join(dir, "__pycache__", name+".cpython-311.pyc")+"'")
	}
	require.Contains(t, out, "alpha beta")
	b, err := os.ReadFile(h.path(wheelDir(bad, "3.11"), "bytecode.json"))
	require.NoError(t, err)
	require.Contains(t, string(b), `"skipped":["gamma/bad.py"]`)

	// Whatever a version's interpreter is told, it takes these files for what they are.
	require.Equal(t, "alpha beta", h.run(e.Python(), "--check-hash-based-pycs", "always", "-B", "-c", "import beta; print(beta.NAME)"))

	// Bytecode goes with its wheel.
	require.NoError(t, h.Keep(t.Context(), nil))
	require.Empty(t, h.list("wheels"))
}

// TestTraceback has an error come out of precompiled modules, of a directory that is one wheel's and of a merged one.
func TestTraceback(t *testing.T) {
	h := newHost(t)
	code := "def fail():\n    return [1 / n for n in (0,)]\n"
	a := h.wheel(alphaFile, file{name: "alpha/deep/x.py", content: code}, file{name: "space/y.py", content: code})
	b := h.wheel(betaFile, file{name: "space/z.py", content: code})
	e := h.env("tree", a, b)
	h.fill(h.pyCompile, a, b)
	for _, m := range []string{"alpha.deep.x", "space.y"} {
		out := h.python(e, "import traceback, "+m+"\ntry:\n    "+m+".fail()\nexcept ZeroDivisionError:\n    print(traceback.format_exc())")
		require.Contains(t, out, `File "`+site(e, filepath.FromSlash(strings.ReplaceAll(m, ".", "/")))+`.py", line 2, in fail`)
		require.Contains(t, out, "return [1 / n for n in (0,)]")
	}
}

func TestFillIsInterrupted(t *testing.T) {
	h := newHost(t)
	alpha, beta := h.alpha(), h.beta()
	h.env("tree", alpha, beta)
	ctx, cancel := context.WithCancel(t.Context())
	err := h.Fill(ctx, []Wheel{alpha, beta}, h.py, 1, func(ctx context.Context, w Wheel, siteDir, out string, modules []string) ([]string, error) {
		if w == beta {
			require.NoError(t, os.WriteFile(filepath.Join(out, "part"), []byte("half"), 0o644))
			cancel()
			return nil, ctx.Err()
		}
		return h.pyCompile(ctx, w, siteDir, out, modules)
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Eventually(t, func() bool { return len(h.list("tmp")) == 0 }, time.Minute, time.Millisecond, "nothing partial is left")
	require.NoDirExists(t, h.path(wheelDir(beta, "3.11"), "site", "beta", "__pycache__"))
	require.Equal(t, []Wheel{beta}, h.NoBytecode([]Wheel{alpha, beta}, h.py), "what was made is kept, the rest is made the next time")
	h.fill(h.pyCompile, alpha, beta)
	require.Empty(t, h.NoBytecode([]Wheel{alpha, beta}, h.py))
}

// TestFillOfWhatIsGone fills a wheel that retention has deleted, and one that it would delete meanwhile.
func TestFillOfWhatIsGone(t *testing.T) {
	h := newHost(t)
	alpha, beta := h.alpha(), h.beta()
	h.env("tree", alpha)
	h.fill(func(context.Context, Wheel, string, string, []string) ([]string, error) {
		require.NoError(t, h.Keep(t.Context(), nil))
		return nil, nil
	}, alpha, beta)
	require.DirExists(t, h.path(wheelDir(alpha, "3.11")))
	require.NoError(t, h.Keep(t.Context(), nil))
	require.Empty(t, h.list("wheels"))
}

// TestFillFollowsNoSymlink has a version replace a directory of bytecode by a symlink.
func TestFillFollowsNoSymlink(t *testing.T) {
	h := newHost(t)
	alpha, elsewhere := h.alpha(), t.TempDir()
	h.env("tree", alpha)
	require.NoError(t, os.Symlink(elsewhere, h.path(wheelDir(alpha, "3.11"), "site", "alpha", "__pycache__")))
	h.fill(h.pyCompile, alpha)
	entries, err := os.ReadDir(elsewhere)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.FileExists(t, h.path(wheelDir(alpha, "3.11"), "site", "space", "__pycache__", "a.cpython-311.pyc"))
}

// bytecodeOf makes a wheel's bytecode on another host.
func (h *host) bytecodeOf(w Wheel) map[string][]byte {
	other := newHost(h.t)
	other.cas = h.cas
	other.env("tree", w)
	files := map[string][]byte{}
	other.fill(func(ctx context.Context, w Wheel, siteDir, out string, modules []string) ([]string, error) {
		if _, err := other.pyCompile(ctx, w, siteDir, out, modules); err != nil {
			return nil, err
		}
		for _, m := range modules {
			name := bytecodeName(m, h.py.Tag)
			b, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				return nil, err
			}
			files[name] = b
		}
		return nil, nil
	}, w)
	return files
}

func TestFetch(t *testing.T) {
	h := newHost(t)
	alpha, beta := h.alpha(), h.beta()
	there := h.bytecodeOf(alpha)
	delete(there, bytecodeName("alpha/__main__.py", h.py.Tag)) // one that does not compile
	there["other/"+bytecodeName("x.py", h.py.Tag)] = []byte("not of a module of this wheel")
	asked := 0
	h.Fetch = func(_ context.Context, py *Interpreter, wheels []Wheel, got func(int, map[string][]byte) error) error {
		asked++
		require.Equal(t, h.py, py)
		require.ErrorContains(t, got(0, map[string][]byte{"../__pycache__/x.pyc": nil}), "not where bytecode lies")
		require.ErrorContains(t, got(0, map[string][]byte{"alpha/__init__.py": nil}), "not where bytecode lies")
		for i, w := range wheels {
			if w == alpha {
				require.NoError(t, got(i, there))
			}
		}
		return nil
	}
	e := h.env("tree", alpha, beta)
	require.EqualValues(t, len(there), e.Fetched.Files)
	require.Equal(t, []Wheel{beta}, h.NoBytecode([]Wheel{alpha, beta}, h.py))
	require.Contains(t, h.loaded(e, "import alpha"), "code object from '"+site(e, "alpha", "__pycache__", "__init__.cpython-311.pyc")+"'")
	require.NoDirExists(t, h.path(wheelDir(alpha, "3.11"), "site", "other"))
	require.Empty(t, h.list("tmp"))
	h.env("tree", alpha, beta)
	require.Equal(t, 1, asked, "an environment that is there is not asked for")

	late := make(chan struct{})
	// Another environment of the same wheels asks for those that have none. Nobody waits for what does not come.
	h.Fetch = func(ctx context.Context, _ *Interpreter, wheels []Wheel, got func(int, map[string][]byte) error) error {
		assert.Equal(t, []Wheel{beta}, wheels)
		<-ctx.Done()
		assert.ErrorIs(t, got(0, nil), errTooLate)
		close(late)
		return ctx.Err()
	}
	require.Zero(t, h.env("two", alpha, beta).Fetched)
	<-late
	require.Empty(t, h.list("tmp"))
}

func TestFetchFails(t *testing.T) {
	h := newHost(t)
	h.Fetch = func(context.Context, *Interpreter, []Wheel, func(int, map[string][]byte) error) error {
		return errors.New("the cache is away")
	}
	require.Equal(t, "alpha", h.python(h.env("tree", h.alpha()), "import alpha; print(alpha.NAME)"))
}
