package project

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// sources selects the files of the only location of the project in dir.
func sources(t testing.TB, dir string) (*Sources, error) {
	t.Helper()
	p := load(t, dir)
	loc, err := p.Location("")
	require.NoError(t, err)
	return p.Sources(context.Background(), loc)
}

func mustSources(t testing.TB, dir string) *Sources {
	t.Helper()
	s, err := sources(t, dir)
	require.NoError(t, err)
	return s
}

func paths(s *Sources) []string {
	var out []string
	for _, f := range s.Files {
		out = append(out, f.Path)
	}
	return out
}

func TestSourcesLeaveOutWhatIsNotSource(t *testing.T) {
	dir := fixture(t, "leftout")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "empty/dir"), 0o755))
	s := mustSources(t, dir)
	require.Equal(t, []string{
		".dockerignore", ".env.example", ".gitignore", "app/__init__.py", "app/build/__init__.py", "app/data/keep.csv",
		"app/data/table.csv", "app/dist/readme.txt", "build_tools.py", "docs/build/page.html", "keys/id_rsa.pub",
		"pexpress.toml", "requirements.txt", "setup.py", "vendor/lib/x.py",
	}, paths(s))
	for _, f := range s.Files {
		require.Equal(t, filepath.Join(dir, filepath.FromSlash(f.Path)), f.Abs)
	}
	require.Len(t, s.Warnings, 4, "%q", s.Warnings)
	for i, want := range []string{".env looks like a secret", ".env.local ", "app/service-account-prod.json", "keys/id_rsa "} {
		require.True(t, strings.HasPrefix(s.Warnings[i], want), s.Warnings[i])
		require.Contains(t, s.Warnings[i], "secrets = [")
	}
}

func TestSourcesIncludeExcludeSecrets(t *testing.T) {
	dir := checkout(t, `
-- pexpress.toml --
include = ["/generated/", "build/keep.txt", "cache.pyc"]
exclude = ["notebooks/", "*.md", ".env.silent"]
secrets = ["certs/ca.pem"]
-- .gitignore --
generated
certs/
*.bin
-- pyproject.toml --
-- generated/a.py --
-- generated/deep/b.bin --
-- generated/c.key --
-- sub/generated/no.py --
-- build/keep.txt --
-- build/lib/no.py --
-- certs/ca.pem --
-- certs/other.txt --
-- notebooks/a.ipynb --
-- README.md --
-- .env.silent --
-- .env --
-- cache.pyc --
-- app.py --
`)
	s := mustSources(t, dir)
	require.Equal(t, []string{
		".gitignore", "app.py", "build/keep.txt", "cache.pyc", "certs/ca.pem", "generated/a.py", "generated/deep/b.bin",
		"pexpress.toml", "pyproject.toml",
	}, paths(s))
	require.Len(t, s.Warnings, 2, "%q", s.Warnings)
	require.Contains(t, s.Warnings[0], ".env ")
	require.Contains(t, s.Warnings[1], "generated/c.key ")
}

// A location below the repository's top is ruled by the .gitignore files above it, but not by one that ignores all of it.
func TestSourcesObeyGitignoreAbove(t *testing.T) {
	dir := checkout(t, `
-- .git/HEAD --
-- .gitignore --
*.tmp
/services/web/out
/scratch
-- services/.gitignore --
*.log
-- services/web/app.py --
-- services/web/a.tmp --
-- services/web/a.log --
-- services/web/out/x --
-- scratch/copy/app.py --
-- scratch/copy/a.tmp --
`)
	require.Equal(t, []string{"app.py"}, paths(mustSources(t, filepath.Join(dir, "services/web"))))
	require.Equal(t, []string{"a.tmp", "app.py"}, paths(mustSources(t, filepath.Join(dir, "scratch/copy"))))
}

func TestSourcesSymlinks(t *testing.T) {
	dir := checkout(t, `
-- .gitignore --
ignored
-- data/real.csv --
1
-- app/data --
-> ../data
-- app/chain --
-> data/real.csv
-- current --
-> data
-- ignored/x --
-- into --
-> ignored/x
-- broken.pyc --
-> /nowhere
`)
	s := mustSources(t, dir)
	require.Equal(t, map[string]string{"app/chain": "data/real.csv", "app/data": "../data", "current": "data"}, s.Symlinks)
	require.Equal(t, []string{".gitignore", "data/real.csv"}, paths(s))
	require.Len(t, s.Warnings, 1)
	require.Contains(t, s.Warnings[0], "into is left out: it points to ignored/x, which is left out")
}

func TestSourcesRefuseSymlinksThatLeave(t *testing.T) {
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "f"), nil, 0o644))
	for name, test := range map[string]struct {
		link, target, want string
	}{
		"up":          {"a/l", "../../x", "symlink a/l points out of the project"},
		"absolute":    {"l", filepath.Join(outside, "f"), "symlink l points out of the project"},
		"through":     {"l", "out/f", "points out of the project"},
		"dangling":    {"l", "nothing", "symlink l points to nothing, which does not exist"},
		"loop":        {"l", "l", "does not exist"},
		"up and back": {"l", "../checkout/a/b.py", "symlink l points out of the project"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := checkout(t, "-- a/b.py --\n")
			require.NoError(t, os.Symlink(test.target, filepath.Join(dir, test.link)))
			if name == "through" {
				require.NoError(t, os.Symlink(outside, filepath.Join(dir, "out")))
			}
			_, err := sources(t, dir)
			require.ErrorContains(t, err, test.want)
		})
	}
	t.Run("absolute inside", func(t *testing.T) {
		dir := checkout(t, "-- a/b.py --\n")
		require.NoError(t, os.Symlink(filepath.Join(dir, "a/b.py"), filepath.Join(dir, "a/l")))
		_, err := sources(t, dir)
		require.ErrorContains(t, err, "make it relative: ln -sfn b.py a/l")
	})
}

func TestSourcesSpecialFilesAndNames(t *testing.T) {
	dir := checkout(t, "-- a.py --\n")
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	socket, err := net.Listen("unix", filepath.Join(dir, "sock"))
	require.NoError(t, err)
	defer socket.Close()
	s := mustSources(t, dir)
	require.Equal(t, []string{"a.py"}, paths(s))
	require.Equal(t, []string{"pipe is a named pipe and is left out", "sock is a socket and is left out"}, s.Warnings)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "caf\xe9.py"), nil, 0o644))
	_, err = sources(t, dir)
	require.ErrorContains(t, err, `the name "caf\xe9.py" is not UTF-8`)
}

func TestSourceRoots(t *testing.T) {
	tests := map[string]struct {
		files string
		want  []string
	}{
		"flat":       {"-- pkg/__init__.py --\n", nil},
		"src":        {"-- src/pkg/__init__.py --\n", []string{"src"}},
		"src module": {"-- src/mod.py --\n", []string{"src"}},
		"namespace":  {"-- src/ns/pkg/__init__.py --\n", []string{"src"}},
		"src is a package": {
			"-- src/__init__.py --\n-- src/pkg/__init__.py --\n", nil,
		},
		"setuptools find": {
			"-- pyproject.toml --\n[tool.setuptools.packages.find]\nwhere = [\"lib\", \"gone\"]\n-- lib/pkg/__init__.py --\n", []string{"lib"},
		},
		"setuptools package-dir": {
			"-- pyproject.toml --\n[tool.setuptools.package-dir]\n\"\" = \"python\"\n-- python/pkg/__init__.py --\n", []string{"python"},
		},
		"setuptools one package": {
			"-- pyproject.toml --\n[tool.setuptools.package-dir]\n\"a.b\" = \"code/a/b\"\n-- code/a/b/__init__.py --\n", []string{"code"},
		},
		"hatch packages": {
			"-- pyproject.toml --\n[tool.hatch.build.targets.wheel]\npackages = [\"code/pkg\"]\n-- code/pkg/__init__.py --\n", []string{"code"},
		},
		"hatch sources": {
			"-- pyproject.toml --\n[tool.hatch.build]\nsources = [\"code\"]\n-- code/pkg/__init__.py --\n", []string{"code"},
		},
		"poetry": {
			"-- pyproject.toml --\n[tool.poetry]\npackages = [{include = \"pkg\", from = \"code\"}]\n-- code/pkg/__init__.py --\n", []string{"code"},
		},
		"uv": {
			"-- pyproject.toml --\n[tool.uv.build-backend]\nmodule-root = \"code\"\n-- code/pkg/__init__.py --\n", []string{"code"},
		},
		"explicitly flat": {
			"-- pyproject.toml --\n[tool.uv.build-backend]\nmodule-root = \"\"\n-- src/x.py --\n-- pkg/__init__.py --\n", nil,
		},
		"setup.cfg": {
			"-- setup.cfg --\n[options]\npackage_dir =\n    = code\n-- code/pkg/__init__.py --\n", []string{"code"},
		},
		"setup.py package_dir": {
			"-- setup.py --\nfrom setuptools import *\nROOT = 'code'\nsetup(name='x', version='1', package_dir={\"\": ROOT})\n" +
				"-- code/pkg/__init__.py --\n", []string{"code"},
		},
		"setup.py find_packages": {
			"-- setup.py --\nimport setuptools\nsetuptools.setup(name='x', version='1', packages=setuptools.find_packages(where=\"code\"))\n" +
				"-- code/pkg/__init__.py --\n", []string{"code"},
		},
		"configured": {
			"-- pexpress.toml --\nsource-roots = [\"two\", \"one\"]\n-- one/a.py --\n-- two/b.py --\n-- src/c.py --\n", []string{"two", "one"},
		},
		"configured away": {"-- pexpress.toml --\nsource-roots = []\n-- src/c.py --\n", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, mustSources(t, checkout(t, test.files)).Roots)
		})
	}
}

func TestSourcesOfWorkspace(t *testing.T) {
	dir := fixture(t, "workspace")
	p := load(t, filepath.Join(dir, "services/web"))
	loc := &p.Locations[0]
	s, err := p.Sources(context.Background(), loc)
	require.NoError(t, err)
	require.Equal(t, []string{
		"_workspace/core/core/__init__.py", "_workspace/core/pyproject.toml",
		"_workspace/util-lib/pyproject.toml", "_workspace/util-lib/src/util/__init__.py", "_workspace/util-lib/src/util/data.txt",
		"pyproject.toml", "vendored/pyproject.toml", "vendored/vend/__init__.py", "web/__init__.py",
	}, paths(s))
	require.Equal(t, []string{"_workspace/core", "_workspace/util-lib/src", "vendored"}, s.Roots)
	require.Contains(t, s.Generated, "web-1.0.dist-info/METADATA")
	require.Contains(t, s.Generated, "util_lib-2.0.dist-info/METADATA")
	require.Contains(t, s.Generated, "core-3.0.dist-info/METADATA")
	require.Contains(t, s.Generated, "vendored-0.1.dist-info/METADATA")
}

func TestSourcesOfPathDependencies(t *testing.T) {
	lib := func(name string) string {
		return fmt.Sprintf("-- libs/%[1]s/pyproject.toml --\n[project]\nname = %[1]q\nversion = \"1\"\n-- libs/%[1]s/%[1]s/__init__.py --\n", name)
	}
	for name, project := range map[string]string{
		"requirements -e":       "-- app/requirements.txt --\n# comment\n-e ../libs/lib\n-r more.txt\n-- app/more.txt --\nrequests==1 ; python_version > '3' # x\n",
		"requirements path":     "-- app/requirements.txt --\n../libs/lib[extra] ; python_version > '3'\n",
		"requirements --edit":   "-- app/requirements.txt --\n--editable=../libs/lib\n--index-url x\n",
		"requirements included": "-- app/requirements.txt --\n-r req/more.txt\n-- app/req/more.txt --\n./../libs/lib\n",
		"pep 508 file":          "-- app/pyproject.toml --\n[project]\nname = \"app\"\nversion = \"1\"\ndependencies = [\"lib @ file:../libs/lib\"]\n",
		"pep 508 root":          "-- app/pyproject.toml --\n[project]\nname = \"app\"\nversion = \"1\"\ndependencies = [\"lib @ file:///${PROJECT_ROOT}/../libs/lib\"]\n",
		"hatch root":            "-- app/pyproject.toml --\n[project]\nname = \"app\"\nversion = \"1\"\ndependencies = [\"lib @ {root:uri}/../libs/lib\"]\n",
		"poetry":                "-- app/pyproject.toml --\n[tool.poetry]\nname = \"app\"\nversion = \"1\"\n[tool.poetry.dependencies]\npython = \"^3.9\"\nlib = {path = \"../libs/lib\", develop = true}\n",
		"uv path":               "-- app/pyproject.toml --\n[project]\nname = \"app\"\nversion = \"1\"\ndependencies = [\"lib\"]\n[tool.uv.sources]\nlib = { path = \"../libs/lib\", editable = true }\n",
		"setup.cfg":             "-- app/setup.cfg --\n[metadata]\nname = app\nversion = 1\n[options]\ninstall_requires =\n    lib @ file:../libs/lib\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := mustSources(t, filepath.Join(checkout(t, project+lib("lib")), "app"))
			require.Equal(t, []string{"_workspace/lib"}, s.Roots)
			require.Contains(t, paths(s), "_workspace/lib/lib/__init__.py")
			require.Contains(t, s.Generated, "lib-1.dist-info/METADATA")
		})
	}
	t.Run("missing", func(t *testing.T) {
		_, err := sources(t, filepath.Join(checkout(t, "-- app/requirements.txt --\n-e ../libs/gone\n"), "app"))
		require.ErrorContains(t, err, "libs/gone, which does not exist")
	})
	t.Run("collision", func(t *testing.T) {
		_, err := sources(t, filepath.Join(checkout(t, "-- app/requirements.txt --\n-e ../libs/lib\n-- app/_workspace/x --\n"+lib("lib")), "app"))
		require.ErrorContains(t, err, "rename it")
	})
}

func TestSourcesWarnAboutMissingEntry(t *testing.T) {
	for name, test := range map[string]struct{ config, want string }{
		"there":      {"preset = \"asgi\"\napp = \"web:app\"", ""},
		"in src":     {"preset = \"module\"\nmodule = \"pkg.main\"", ""},
		"not there":  {"preset = \"wsgi\"\napp = \"other:app\"", "location x runs the module other, which is not in the sources"},
		"submodule":  {"preset = \"dagster\"\nmodule = \"pkg.defs\"", "location x runs the module pkg.defs, which is not in the sources"},
		"file":       {"preset = \"dagster\"\nfile = \"src/pkg/main.py\"", ""},
		"no file":    {"preset = \"dagster\"\nfile = \"main.py\"", "location x runs the file main.py, which is not in the sources"},
		"in its dir": {"preset = \"module\"\nmodule = \"tool\"\nworking-directory = \"bin\"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustSources(t, checkout(t, "-- web.py --\n-- bin/tool.py --\n-- src/pkg/main.py --\n-- pexpress.toml --\n[location.x]\n"+test.config+"\n"))
			if test.want == "" {
				require.Empty(t, s.Warnings)
			} else {
				require.Len(t, s.Warnings, 1)
				require.Contains(t, s.Warnings[0], test.want)
			}
		})
	}
}

func TestSourcesStopWhenCancelled(t *testing.T) {
	p := load(t, checkout(t, "-- a.py --\n"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := p.Sources(ctx, &p.Locations[0])
	require.ErrorIs(t, err, context.Canceled)
}

// The order of files does not depend on the order in which the parallel walk meets them.
func TestSourcesAreSorted(t *testing.T) {
	dir := manyFiles(t, 2000)
	first := paths(mustSources(t, dir))
	require.True(t, slices.IsSorted(first))
	require.Len(t, first, 2001)
	for range 5 {
		require.Equal(t, first, paths(mustSources(t, dir)))
	}
}

func manyFiles(t testing.TB, n int) string {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("*.log\n/out/\n__pycache__/\n*.py[co]\n!keep\ndocs/**/_build\n"), 0o644))
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("pkg%02d/mod%02d", i%40, i%7))
		require.NoError(t, os.MkdirAll(sub, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%05d.py", i)), []byte("x = 1\n"), 0o644))
	}
	return dir
}

func BenchmarkSources10000(b *testing.B) {
	p := load(b, manyFiles(b, 10_000))
	for b.Loop() {
		s, err := p.Sources(context.Background(), &p.Locations[0])
		require.NoError(b, err)
		require.Len(b, s.Files, 10_001)
	}
}
