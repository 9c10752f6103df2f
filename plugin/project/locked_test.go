package project

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// applies is a stand-in for a marker evaluator.
func applies(marker string) (bool, error) {
	if strings.Contains(marker, "nonsense") {
		return false, errors.New("not a marker")
	}
	return !strings.Contains(marker, "win32"), nil
}

func TestCheckLocked(t *testing.T) {
	dir := checkout(t, `
-- app/pexpress.toml --
extras = ["s3"]
groups = ["prod"]
-- app/pyproject.toml --
[project]
name = "app"
version = "1"
dependencies = ["Requests>=2,<3", "lib", "pywin32; sys_platform == 'win32'", "odd; nonsense", "pre>=1", "direct @ https://files.example/direct-1.whl"]
[project.optional-dependencies]
s3 = ["boto3~=1.2", "app[more]"]
more = ["deep"]
unused = ["never"]
[dependency-groups]
prod = ["gunicorn", {include-group = "base"}]
base = ["uvloop!=0.1"]
dev = ["pytest"]
[tool.uv.sources]
lib = { path = "../lib" }
-- app/requirements.txt --
flask==3.0.0 \
    --hash=sha256:00 \
    --hash=sha256:01
    # via app
-- lib/pyproject.toml --
[tool.poetry]
name = "lib"
version = "1"
[tool.poetry.dependencies]
python = "^3.9"
attrs = "^23.1"
old = {version = "~1.2", python = "<3.8"}
[tool.poetry.group.dev.dependencies]
black = "*"
`)
	p := load(t, filepath.Join(dir, "app"))
	good := map[string]string{
		"requests": "2.31.0", "boto3": "1.40", "deep": "1", "gunicorn": "1", "uvloop": "0.2", "flask": "3.0.0", "attrs": "23.2.0",
		"pre": "1.1rc1", "direct": "1",
	}
	require.NoError(t, p.CheckLocked(&p.Locations[0], good, applies))

	for name, test := range map[string]struct {
		version string
		want    string
	}{
		"requests": {"3.0", "requirement Requests>=2,<3 of"},
		"attrs":    {"24.1", "does not allow attrs 24.1, which is in pylock.toml"},
		"uvloop":   {"0.1", "uvloop!=0.1"},
		"boto3":    {"2.0", "boto3~=1.2"},
		"deep":     {"", "requirement deep of"},
		"gunicorn": {"", "is not in pylock.toml: run pexpress lock"},
		"direct":   {"", "direct @ https"},
	} {
		t.Run(name, func(t *testing.T) {
			locked := map[string]string{}
			for k, v := range good {
				locked[k] = v
			}
			locked[name] = test.version
			if test.version == "" {
				delete(locked, name)
			}
			err := p.CheckLocked(&p.Locations[0], locked, applies)
			require.ErrorIs(t, err, ErrNotLocked)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestCheckLockedUnknownGroup(t *testing.T) {
	p := load(t, checkout(t, "-- pexpress.toml --\ngroups = [\"prod\"]\n"))
	require.ErrorContains(t, p.CheckLocked(&p.Locations[0], nil, applies), `asks for the group "prod"`)
}

func TestParseRequirement(t *testing.T) {
	for in, want := range map[string]requirement{
		"Foo.Bar":                        {name: "foo-bar"},
		"foo [a, b] >=1, <2 ; x == 'y'":  {name: "foo", extras: []string{"a", "b"}, spec: ">=1, <2", marker: "x == 'y'"},
		"foo (>=1.0)":                    {name: "foo", spec: ">=1.0"},
		"foo@https://h.example/a;b.whl":  {name: "foo", url: "https://h.example/a;b.whl"},
		"foo @ file:../x ; os_name=='a'": {name: "foo", url: "file:../x", marker: "os_name=='a'"},
	} {
		got, err := parseRequirement(in)
		require.NoError(t, err)
		want.text = in
		require.Equal(t, want, got)
	}
	for _, in := range []string{"", "-x", "foo bar", "../x"} {
		_, err := parseRequirement(in)
		require.Error(t, err, in)
	}
}

func TestPoetrySpec(t *testing.T) {
	for in, want := range map[string]string{
		"^1.2.3": ">=1.2.3,<2", "^0.2.3": ">=0.2.3,<0.3", "^0.0.3": ">=0.0.3,<0.0.4", "^0": ">=0,<1", "^1": ">=1,<2",
		"~1.2.3": ">=1.2.3,<1.3", "~1.2": ">=1.2,<1.3", "~1": ">=1,<2", "*": "", "1.2": "==1.2", ">=1,<2": ">=1,<2",
		"~=1.4": "~=1.4", "^1 || ^2": "", "!=3": "!=3",
	} {
		require.Equal(t, want, poetrySpec(in), in)
	}
}

// TestLockedFromRequirements checks against the files that the lock is made of: a requirements.txt counts where no
// pyproject.toml says what is required, and beside one it may hold what is for people only.
func TestLockedFromRequirements(t *testing.T) {
	for pyproject, want := range map[string]bool{
		"":                                false,
		"[tool.black]\nline-length = 9\n": false,
		"[project]\nname = \"p\"\nversion = \"1\"\ndependencies = [\"six\"]\n": true,
	} {
		dir := checkout(t, "-- requirements.txt --\nsix\ncolorama\n-- pyproject.toml --\n"+pyproject)
		p := load(t, dir)
		err := p.CheckLocked(&p.Locations[0], map[string]string{"six": "1.17.0"}, applies)
		if want {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrNotLocked)
		require.ErrorContains(t, err, "colorama")
	}
}

// TestUnknownExtra refuses an extra that the project does not have.
func TestUnknownExtra(t *testing.T) {
	dir := checkout(t, "-- pyproject.toml --\n[project]\nname = \"p\"\nversion = \"1\"\n[tool.pexpress]\nextras = [\"nope\"]\n")
	p := load(t, dir)
	require.ErrorContains(t, p.CheckLocked(&p.Locations[0], nil, applies), "nope")
}
