package project

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// materialize writes the sources as source.pex would hold them.
func materialize(t testing.TB, s *Sources) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, b, 0o644))
	}
	for _, f := range s.Files {
		b, err := os.ReadFile(f.Abs)
		require.NoError(t, err)
		write(f.Path, b)
	}
	for name, b := range s.Generated {
		write(name, b)
	}
	for path, target := range s.Symlinks {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755))
		require.NoError(t, os.Symlink(target, filepath.Join(dir, path)))
	}
	return dir
}

// python runs a script in the materialized sources, with the source roots and then the tree's root on sys.path, and
// decodes the JSON that it prints.
func python(t *testing.T, s *Sources, script string, into any) {
	t.Helper()
	interpreter, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	dir := materialize(t, s)
	path, err := json.Marshal(append(s.Roots, "."))
	require.NoError(t, err)
	prelude := "import os, sys, json\nsys.path[:0] = [os.path.abspath(p) for p in " + string(path) + "]\n"
	cmd := exec.Command(interpreter, "-I", "-S", "-B", "-c", prelude+script)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", stderr.String())
	require.NoError(t, json.Unmarshal(out, into), "%s", out)
}

// A real Python finds the project's metadata, entry points and data files where source.pex has them.
func TestPythonSeesTheProjectAsInstalled(t *testing.T) {
	s := mustSources(t, filepath.Join(fixture(t, "installed"), "app"))
	require.Empty(t, s.Warnings)
	var got struct {
		Versions map[string]string
		Requires []string
		Points   map[string]string
		Loaded   string
		Data     string
		Beside   string
		Lib      string
		Summary  string
	}
	python(t, s, `
from importlib import metadata
from pathlib import Path
points = metadata.entry_points()
groups = {g: points.select(group=g) if hasattr(points, "select") else points.get(g, []) for g in ("console_scripts", "shop.plugins")}
import shop, shared_lib
print(json.dumps({
    "Versions": {n: metadata.version(n) for n in ("My-Shop", "my-shop", "my_shop", "shared-lib")},
    "Requires": metadata.requires("my-shop"),
    "Summary": metadata.metadata("my-shop")["Summary"],
    "Points": {e.name: e.value for g in groups.values() for e in g},
    "Loaded": next(e for e in groups["shop.plugins"]).load()(),
    "Data": Path("data/prices.csv").read_text(),
    "Beside": shop.table(),
    "Lib": shared_lib.NAME,
}))
`, &got)
	require.Equal(t, map[string]string{"My-Shop": "1.2rc1", "my-shop": "1.2rc1", "my_shop": "1.2rc1", "shared-lib": "0.3"}, got.Versions)
	require.Equal(t, []string{
		"attrs>=23", `tomli>=2; python_version < "3.11"`, "shared-lib",
		`boto3; extra == "s3"`, `botocore[crt]<2; (os_name == 'posix') and extra == "s3"`,
	}, got.Requires)
	require.Equal(t, "A shop, in one line", got.Summary)
	require.Equal(t, map[string]string{"shop": "shop.cli:main", "csv": "shop:table", "lib": "shared_lib:main"}, got.Points)
	require.Equal(t, "inside the package\n", got.Loaded)
	require.Equal(t, "inside the package\n", got.Beside)
	require.Equal(t, "a,1\n", got.Data)
	require.Equal(t, "shared", got.Lib)
}

func TestVersions(t *testing.T) {
	const dynamic = "-- pyproject.toml --\n[project]\nname = \"x\"\ndynamic = [\"version\"]\n"
	for name, test := range map[string]struct{ files, want string }{
		"static":        {"-- pyproject.toml --\n[project]\nname = \"x\"\nversion = \"1.0-beta.2\"\n", "1.0b2"},
		"poetry":        {"-- pyproject.toml --\n[tool.poetry]\nname = \"x\"\nversion = \"3.1\"\n", "3.1"},
		"setup.cfg":     {"-- setup.cfg --\n[metadata]\nname = x\nversion = 4.0\n", "4.0"},
		"cfg attr":      {"-- setup.cfg --\n[metadata]\nname = x\nversion = attr: pkg.__version__\n-- pkg/__init__.py --\n__version__: str = '5'  # hi\n", "5"},
		"cfg file":      {"-- setup.cfg --\n[metadata]\nname = x\nversion = file: V\n-- V --\n6\n", "6"},
		"setup.py":      {"-- setup.py --\nVERSION = \"1.\" \"7\"\nsetup(name='x', version=VERSION)\n", "1.7"},
		"attr in src":   {dynamic + "[tool.setuptools.dynamic]\nversion = {attr = \"pkg.about.V\"}\n-- src/pkg/about.py --\nV = \"2.5\"\n", "2.5"},
		"file":          {dynamic + "[tool.setuptools.dynamic]\nversion = {file = [\"VERSION\"]}\n-- VERSION --\n2.6\n", "2.6"},
		"hatch":         {dynamic + "[tool.hatch.version]\npath = \"a.py\"\n-- a.py --\n# x\n__version__ = 'v3.3'\n", "3.3"},
		"hatch pattern": {dynamic + "[tool.hatch.version]\npath = \"a.txt\"\npattern = \"release (?P<version>[0-9.]+)\"\n-- a.txt --\nrelease 9.1 now\n", "9.1"},
		"pdm":           {dynamic + "[tool.pdm.version]\nsource = \"file\"\npath = \"a.py\"\n-- a.py --\n__version__ = \"8\"\n", "8"},
		"flit":          {dynamic + "[build-system]\nbuild-backend = \"flit_core.buildapi\"\n-- x.py --\n__version__ = \"0.9\"\n", "0.9"},
		"sdist":         {dynamic + "-- PKG-INFO --\nMetadata-Version: 2.1\nName: x\nVersion: 7.7\n", "7.7"},
		"scm":           {dynamic + "[tool.setuptools_scm]\n", "0+unknown"},
		"computed":      {"-- setup.py --\nsetup(name='x', version=read('VERSION').strip())\n", "0+unknown"},
		"not a version": {"-- pyproject.toml --\n[project]\nname = \"x\"\nversion = \"one\"\n", "0+unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustSources(t, checkout(t, test.files))
			require.Contains(t, s.Generated, "x-"+test.want+".dist-info/METADATA")
			require.Contains(t, string(s.Generated["x-"+test.want+".dist-info/METADATA"]), "\nVersion: "+test.want+"\n")
			if test.want == unknownVersion {
				require.Len(t, s.Warnings, 1)
			} else {
				require.Empty(t, s.Warnings)
			}
		})
	}
}

func TestNoMetadataWithoutName(t *testing.T) {
	s := mustSources(t, checkout(t, "-- pyproject.toml --\n[tool.ruff]\n-- a.py --\n"))
	require.Empty(t, s.Generated)
	require.Empty(t, s.Warnings)

	s = mustSources(t, checkout(t, "-- setup.py --\nsetup(name=get_name(), version='1')\n"))
	require.Empty(t, s.Generated)
	require.Len(t, s.Warnings, 1)
	require.Contains(t, s.Warnings[0], "setup.py computes the project's name")
}

func TestMetadataInTheCheckoutWins(t *testing.T) {
	s := mustSources(t, checkout(t, `
-- pyproject.toml --
[project]
name = "x"
version = "1"
-- x-1.dist-info/METADATA --
theirs
`))
	require.NotContains(t, s.Generated, "x-1.dist-info/METADATA")
	require.Contains(t, s.Generated, "x-1.dist-info/INSTALLER")
}

// The scanner reads what setup.py files commonly contain, and takes what is computed for unknown.
func TestSetupCall(t *testing.T) {
	got := setupCall(`#!/usr/bin/env python
"""Docstring with setup(name='wrong')."""
from setuptools import find_packages, setup  # setup(
import os, re

HERE = os.path.dirname(__file__)
NAME = 'tool'
DEPS = [
    "a>=1",   # first
    'b; python_version<"3"',
]
LONG = (
    "one "
    "two"
)
with open(os.path.join(HERE, "README.md")) as f:
    long_description = f.read()

def setup_helper(x):
    return setup2(name="no")

setup(
    name=NAME,
    version=re.search(r"(\d+)", open("x").read()).group(1),
    description=LONG,
    long_description=long_description,
    packages=find_packages("src", exclude=["tests*"]),
    package_dir={"": "src"},
    install_requires=DEPS,
    extras_require={'x': ["c"], "y" : "d\ne", f"{z}": []},
    entry_points={"console_scripts": ["t = tool:main", "u=tool:other"]},
    python_requires=">=3.8" if True else None,
    classifiers=[c for c in []],
    zip_safe=False,
    url="https://" + HOST,
)
`)
	require.Equal(t, "tool", got["name"])
	require.Nil(t, got["version"])
	require.Equal(t, "one two", got["description"])
	require.Nil(t, got["long_description"])
	require.Equal(t, pyCall{
		function: "find_packages", args: []any{"src"}, keywords: map[string]any{"exclude": []any{"tests*"}},
	}, got["packages"])
	require.Equal(t, map[string]any{"": "src"}, got["package_dir"])
	require.Equal(t, []any{"a>=1", `b; python_version<"3"`}, got["install_requires"])
	require.Equal(t, map[string]any{"x": []any{"c"}, "y": "d\ne"}, got["extras_require"])
	require.Equal(t, map[string]any{"console_scripts": []any{"t = tool:main", "u=tool:other"}}, got["entry_points"])
	require.Nil(t, got["python_requires"])
	require.Nil(t, got["url"])
	require.Nil(t, setupCall("print('no call')\n"))
}

// Whatever a setup.py holds, the scanner ends.
func FuzzSetupCall(f *testing.F) {
	f.Add("setup(name='x', a=[1,2,(3)], b={'c': d()})")
	f.Add("setup(")
	f.Add("X = [\nsetup(name=X)")
	f.Add(`setup(a="\`)
	f.Fuzz(func(_ *testing.T, source string) { setupCall(source) })
}
