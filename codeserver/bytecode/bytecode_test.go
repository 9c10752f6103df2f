package bytecode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/venv"
)

// sources are modules of which marshal could write something else each time: strings that other modules intern, sets,
// constants that functions share.
var sources = map[string]string{
	"pkg/__init__.py": "import os, sys\n__all__ = ['join', 'path', 'compile', 'marshal']\n",
	"pkg/sets.py":     "def f(x):\n    return x in {'alpha', 'beta', 'gamma', 'delta', 'join'} or x in {1, 2.5, 'path', b'b'}\n",
	"pkg/none.py":     "def f(x):\n    return x in {None, ..., 'a', 'b', ('c', None)}\n",
	"pkg/big.py":      "def f(x):\n    return x % 2**64 == 2**64 - 1\ndef g(x):\n    return 2**64, 2**64, x >> 64\n",
	"pkg/ünïcode.py":  "class Ä:\n    ö: int = 3\n    def join(self, path=('a', ('b', 'c'))): return f'{path!r:>10}' + 'alpha'\n",
	"pkg/empty.py":    "",
	"single.py":       "# -*- coding: latin-1 -*-\nx = '\xe9'\n",
	"old/python2.py":  "print 'no'\n",
	"old/null.py":     "x = 1\x00\n",
	"old/escape.py":   "x = '\\d'\n", // a SyntaxWarning
}

var broken = []string{"old/null.py", "old/python2.py"}

// pythons returns the interpreters of this host for which bytecode is made.
func pythons(t *testing.T) []*venv.Interpreter {
	var all []*venv.Interpreter
	for _, v := range []string{"3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"} {
		if py, err := venv.Find(t.Context(), v); err == nil {
			all = append(all, py)
		}
	}
	require.NotEmpty(t, all)
	return all
}

// write makes the files below a new directory, in the order that is given.
func write(t *testing.T, files map[string]string, names []string) string {
	dir := t.TempDir()
	for _, n := range names {
		p := filepath.Join(dir, filepath.FromSlash(n))
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(files[n]), 0o644))
	}
	return dir
}

func sorted[V any](m map[string]V) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// files returns what is below a directory.
func files(t *testing.T, dir string) map[string]digest.Digest {
	found := map[string]digest.Digest{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		found[filepath.ToSlash(rel)] = digest.FromBytes(b)
		return err
	}))
	return found
}

// TestSameEverywhere compiles twice with each Python: in another directory whose files were made in another order, with another
// environment of this process, at the same time as another.
func TestSameEverywhere(t *testing.T) {
	names := sorted(sources)
	reversed := slices.Clone(names)
	slices.Reverse(reversed)
	here, there := write(t, sources, names), write(t, sources, reversed)
	for _, py := range pythons(t) {
		t.Run(py.Version, func(t *testing.T) {
			names := slices.Clone(names)
			if slices.Contains([]string{"3.8", "3.9", "3.10"}, py.Version) {
				// What compile.py says of None: this module is no part of the promise there.
				names = slices.DeleteFunc(names, func(n string) bool { return n == "pkg/none.py" })
			}
			t.Setenv("PYTHONHASHSEED", "1")
			t.Setenv("PYTHONDONTWRITEBYTECODE", "")
			one := t.TempDir()
			skipped, err := Compile(t.Context(), py, here, one, names)
			require.NoError(t, err)
			require.Equal(t, broken, skipped)
			want := files(t, one)
			require.Len(t, want, len(names)-len(broken))
			require.Contains(t, want, "pkg/__pycache__/sets."+py.Tag+".pyc")

			t.Setenv("PYTHONHASHSEED", "2")
			t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
			t.Setenv("PYTHONOPTIMIZE", "2")
			t.Setenv("LC_ALL", "C")
			var both sync.WaitGroup
			outs := []string{t.TempDir(), t.TempDir()}
			for _, out := range outs {
				both.Go(func() {
					again, err := Compile(t.Context(), py, there, out, names)
					if err != nil || !slices.Equal(again, broken) {
						t.Errorf("%q, %v", again, err)
					}
				})
			}
			both.Wait()
			for _, out := range outs {
				require.Equal(t, want, files(t, out))
			}
		})
	}
}

func python311(t *testing.T) *venv.Interpreter {
	py, err := venv.Find(t.Context(), "3.11")
	require.NoError(t, err)
	return py
}

// TestWheelsCodeDoesNotRun has what Python would import or execute at its start lie in the wheel and in the directory that
// it writes to.
func TestWheelsCodeDoesNotRun(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	evil := fmt.Sprintf("open(%q, 'w')\n", ran)
	hostile := map[string]string{"json.py": evil, "sitecustomize.py": evil, "usercustomize.py": evil, "x.pth": "import sitecustomize\n", "marshal.py": evil, "importlib/__init__.py": evil, "resource.py": evil}
	dir := write(t, hostile, sorted(hostile))
	t.Setenv("PYTHONPATH", dir)
	t.Setenv("PYTHONSTARTUP", filepath.Join(dir, "json.py"))
	t.Chdir(dir)
	_, err := Compile(t.Context(), python311(t), dir, dir, []string{"importlib/__init__.py", "json.py", "marshal.py", "sitecustomize.py"})
	require.NoError(t, err)
	require.NoFileExists(t, ran)
	require.FileExists(t, filepath.Join(dir, "__pycache__", "json.cpython-311.pyc"))
}

// TestOneThatEndsTheProcess has a module be in work for longer than it may.
func TestOneThatEndsTheProcess(t *testing.T) {
	dir, out := write(t, map[string]string{"a.py": "x = 1\n", "c.py": "y = 2\n"}, []string{"a.py", "c.py"}), t.TempDir()
	fifo(t, filepath.Join(dir, "b.py")) // to be read, it waits for somebody who writes
	skipped, err := compile(t.Context(), python311(t), dir, out, []string{"a.py", "b.py", "c.py"}, 3*time.Second)
	require.NoError(t, err)
	require.Equal(t, []string{"b.py"}, skipped)
	require.Equal(t, []string{"__pycache__/a.cpython-311.pyc", "__pycache__/c.cpython-311.pyc"}, sorted(files(t, out)))
}

func TestCannotCompile(t *testing.T) {
	dir := write(t, map[string]string{"a.py": ""}, []string{"a.py"})
	_, err := Compile(t.Context(), python311(t), dir, t.TempDir(), []string{"a.py", "gone.py"})
	require.ErrorContains(t, err, "gone.py")
	_, err = Compile(t.Context(), &venv.Interpreter{Path: "/bin/true"}, dir, t.TempDir(), []string{"a.py"})
	require.ErrorContains(t, err, "before its work was done")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Compile(ctx, python311(t), dir, t.TempDir(), []string{"a.py"})
	require.ErrorIs(t, err, context.Canceled)
}

// log returns a logger and what it has written.
func logger() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

var errAway = errors.New("the cache is away")
