package venv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/merkle"
)

const (
	alphaFile = "alpha_pkg-1.0-py3-none-any.whl"
	betaFile  = "beta-2.0-py3-none-any.whl"
)

func (h *host) alpha() Wheel {
	return h.wheel(
		alphaFile,
		file{name: "alpha/__init__.py", content: "NAME = 'alpha'\ndef main():\n    print('alpha runs')\n    return 0\n"},
		file{name: "alpha/__main__.py", content: "import sys; print(sys.executable)\n"},
		file{name: "alpha/text.txt", content: "text"},
		file{name: "space/a.py", content: "A = 1\n"},
		file{name: "space/both/a.py", content: "A = 2\n"},
		file{name: "alpha_pkg-1.0.dist-info/entry_points.txt", content: "# a comment\n[console_scripts]\nalpha-run = alpha:main\n\n[other]\nx = y\n[gui_scripts]\nalpha-gui=alpha : main [extra]\n"},
	)
}

func (h *host) beta() Wheel {
	return h.wheel(
		betaFile,
		file{name: "single.py", content: "ONE = 1\n"},
		file{name: "beta-2.0.data/purelib/beta/__init__.py", content: "import alpha\nNAME = alpha.NAME + ' beta'\n"},
		file{name: "beta-2.0.data/platlib/space/b.py", content: "B = 3\n"},
		file{name: "space/both/b.py", content: "B = 4\n"},
		file{name: "beta-2.0.data/scripts/beta-script", content: "#!python -E\nimport sys, beta; print(beta.NAME, sys.flags.ignore_environment)\n"},
		file{name: "beta-2.0.data/scripts/beta-shell", content: "#!/bin/sh\necho shell\n"},
		file{name: "beta-2.0.data/data/share/beta.conf", content: "conf"},
		file{name: "beta-2.0.data/headers/beta.h", content: "int beta;"},
		file{name: "beta_tool", content: "#!/bin/sh\n", mode: 0o755},
	)
}

func TestEnv(t *testing.T) {
	h := newHost(t)
	e := h.env("tree", h.alpha(), h.beta())
	require.Empty(t, e.Warnings)

	require.Equal(t, "alpha beta 1", h.python(e, "import alpha, beta, single; print(beta.NAME, single.ONE)"))
	require.Equal(t, "1 3 2 4", h.python(e, "import space.a, space.b, space.both.a, space.both.b as b\nprint(space.a.A, space.b.B, space.both.a.A, b.B)"))
	require.Equal(t, "1.0 2.0", h.python(e, "from importlib.metadata import version as v; print(v('alpha-pkg'), v('beta'))"))
	require.Equal(t, "text", h.python(e, "import pkgutil; print(pkgutil.get_data('alpha', 'text.txt').decode())"))
	require.Equal(t, e.Python(), h.python(e, "import subprocess, sys; print(subprocess.check_output([sys.executable, '-m', 'alpha'], text=True))"))
	require.Equal(t, "alpha-gui alpha-run", h.python(e, "from importlib.metadata import distribution as d\nprint(*sorted(e.name for e in d('alpha-pkg').entry_points if 'scripts' in e.group))"))

	bin := filepath.Join(e.Dir, "bin")
	require.Equal(t, "alpha runs", h.run(filepath.Join(bin, "alpha-run")))
	require.Equal(t, "alpha runs", h.run(filepath.Join(bin, "alpha-gui")))
	require.Equal(t, "alpha beta 1", h.run(filepath.Join(bin, "beta-script")))
	require.Equal(t, "shell", h.run(filepath.Join(bin, "beta-shell")))
	require.Equal(t, "3.11", h.run(filepath.Join(bin, "python3.11"), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"))

	conf, err := os.ReadFile(filepath.Join(e.Dir, "share", "beta.conf"))
	require.NoError(t, err)
	require.Equal(t, "conf", string(conf))
	require.FileExists(t, filepath.Join(e.Dir, "include", "site", "python3.11", "beta", "beta.h"))

	st, err := os.Stat(site(e, "beta_tool"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), st.Mode())
	st, err = os.Stat(site(e, "alpha", "text.txt"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), st.Mode())
	require.True(t, st.ModTime().Equal(merkle.ModTime))
	require.Empty(t, h.list("tmp"))
}

func TestIsolated(t *testing.T) {
	h := newHost(t)
	user := filepath.Join(h.home, ".local", "lib", "python3.11", "site-packages")
	require.NoError(t, os.MkdirAll(user, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(user, "users_own.py"), nil, 0o644))
	e := h.env("tree", h.alpha())
	require.Equal(t, "False", h.python(e, "import site; print(site.ENABLE_USER_SITE)"))
	require.Equal(t, e.Dir, h.python(e, "import sys; print(sys.prefix)"))
	require.Equal(t, h.py.Prefix, h.python(e, "import sys; print(sys.base_prefix)"))
	for path := range strings.SplitSeq(h.python(e, "import sys; print(*sys.path[1:], sep='\\n')"), "\n") {
		if strings.Contains(path, "-packages") {
			require.Contains(t, path, e.Dir)
		}
	}
	require.Equal(t, "None None", h.python(e, "from importlib.util import find_spec as f; print(f('pip'), f('users_own'))"))
}

func TestBytecodeIsShared(t *testing.T) {
	h := newHost(t)
	alpha := h.alpha()
	one, two := h.env("one", alpha), h.env("two", alpha, h.beta())
	h.python(one, "import alpha")
	pyc := h.path(wheelDir(alpha, "3.11"), "site", "alpha", "__pycache__", "__init__.cpython-311.pyc")
	require.FileExists(t, pyc)
	before, err := os.Stat(pyc)
	require.NoError(t, err)
	out := h.run(two.Python(), "-v", "-c", "import alpha")
	require.Contains(t, out, "matches "+site(two, "alpha", "__init__.py"))
	after, err := os.Stat(pyc)
	require.NoError(t, err)
	require.Equal(t, before.ModTime(), after.ModTime(), "read, not written again")

	// A module of a merged directory has the bytecode of its wheel, when there is some; what an interpreter writes there
	// until then is the environment's own.
	link := site(two, "space", "__pycache__", "a.cpython-311.pyc")
	to, err := os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, h.path(wheelDir(alpha, "3.11"), "site", "space", "__pycache__", "a.cpython-311.pyc"), to)
	h.python(two, "import space.a, single")
	for _, written := range []string{link, site(two, "__pycache__", "single.cpython-311.pyc")} {
		st, err := os.Lstat(written)
		require.NoError(t, err)
		require.True(t, st.Mode().IsRegular(), "replaced the link that led nowhere")
	}
	require.NoFileExists(t, to)
	h.python(one, "import space.a")
	require.FileExists(t, to)
	three := h.env("three", alpha, h.beta())
	require.Contains(t, h.run(three.Python(), "-v", "-c", "import space.a"), "matches "+site(three, "space", "a.py"))
}

func TestWheelsThatDisagree(t *testing.T) {
	h := newHost(t)
	a := h.wheel(alphaFile,
		file{name: "same.py", content: "X = 1\n"}, file{name: "differs.py", content: "X = 'a'\n"},
		file{name: "kind", content: "file"},
		file{name: "alpha_pkg-1.0.data/scripts/tool", content: "#!python\nprint('a')\n"})
	b := h.wheel(betaFile,
		file{name: "same.py", content: "X = 1\n"}, file{name: "differs.py", content: "X = 'b'\n"},
		file{name: "kind/x.py", content: ""},
		file{name: "beta-2.0.data/scripts/tool", content: "#!pythonw\nprint('b')\n"},
		file{name: "beta-2.0.data/scripts/python3", content: "#!/bin/sh\n"},
		file{name: "beta-2.0.data/data/pyvenv.cfg", content: "home = /"},
		file{name: "beta-2.0.data/data/bin/tool", content: "shared\n"})
	want := []string{
		betaFile + ": bin/python3 is the environment's own and is left out",
		betaFile + ": bin/tool replaces that of " + alphaFile,
		betaFile + ": pyvenv.cfg is the environment's own and is left out",
		alphaFile + ": bin/tool replaces that of another wheel's data",
		alphaFile + ": lib/python3.11/site-packages/differs.py differs from that of " + betaFile + ", which is used",
		alphaFile + ": lib/python3.11/site-packages/kind is a file in one wheel and a directory in another; it is left out",
	}
	for range 2 { // made, then found
		e := h.env("tree", b, a)
		require.ElementsMatch(t, want, e.Warnings)
		require.Equal(t, "1 b", h.python(e, "import same, differs; print(same.X, differs.X)"))
		require.Equal(t, "b", h.run(filepath.Join(e.Dir, "bin", "tool")))
	}
	shared, err := os.ReadFile(h.path(wheelDir(b, "3.11"), "data", "bin", "tool"))
	require.NoError(t, err)
	require.Equal(t, "shared\n", string(shared), "nothing is written through a symlink")
}

func TestOneProjectTwice(t *testing.T) {
	h := newHost(t)
	_, err := h.Env(t.Context(), key("x"), []Wheel{
		h.wheel("some_thing-1-py3-none-any.whl"), h.wheel("Some.Thing-2-py3-none-any.whl"),
	}, h.py, h.cas)
	require.ErrorContains(t, err, "Some.Thing-2-py3-none-any.whl and some_thing-1-py3-none-any.whl are wheels of one project")
}

func TestLongPathOfTheStore(t *testing.T) {
	h := newHost(t)
	s, err := Open(filepath.Join(t.TempDir(), strings.Repeat("long", 30), "with a space"))
	require.NoError(t, err)
	e, err := s.Env(t.Context(), key("tree"), []Wheel{h.alpha(), h.beta()}, h.py, h.cas)
	require.NoError(t, err)
	require.Equal(t, "alpha runs", h.run(filepath.Join(e.Dir, "bin", "alpha-run")))
	require.Equal(t, "alpha beta 1", h.run(filepath.Join(e.Dir, "bin", "beta-script")))
	_, err = Open(filepath.Join(t.TempDir(), `a"b`))
	require.ErrorContains(t, err, "cannot name")
}

// TestRealWheels uses those that Python brings along.
func TestRealWheels(t *testing.T) {
	h := newHost(t)
	bundled, err := filepath.Glob(filepath.Join(h.py.Prefix, "lib", "python3.11", "ensurepip", "_bundled", "*.whl"))
	require.NoError(t, err)
	if len(bundled) == 0 {
		t.Skip("this Python has no ensurepip")
	}
	var wheels []Wheel
	for _, path := range bundled {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		d, err := cache.PutBlob(t.Context(), h.cas, b)
		require.NoError(t, err)
		wheels = append(wheels, Wheel{Filename: filepath.Base(path), Digest: d})
	}
	e := h.env("tree", wheels...)
	require.Empty(t, e.Warnings)
	require.Contains(t, h.run(filepath.Join(e.Dir, "bin", "pip"), "--version"), site(e, "pip"))
	require.Contains(t, h.run(e.Python(), "-m", "pip", "--disable-pip-version-check", "list"), "setuptools")
}
