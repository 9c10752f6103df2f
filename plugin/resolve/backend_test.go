package resolve

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/plugin/fetch"
)

// TestBuildBackends locks projects whose requirements only their build backend can tell. uv gets the backends from the
// index that this machine's pip is configured with, so this needs the network.
func TestBuildBackends(t *testing.T) {
	if testing.Short() {
		t.Skip("needs an index with setuptools and poetry-core")
	}
	require.NoError(t, fetchUV())
	t.Setenv("PIP_FIND_LINKS", flat(t))
	const script = "from setuptools import setup\nsetup()\n"
	for name, files := range map[string]map[string]string{
		"setup.py":  {"setup.py": "from setuptools import setup\nsetup(name='p', version='1', install_requires=['gamma<2'])\n"},
		"setup.cfg": {"setup.py": script, "setup.cfg": "[metadata]\nname = p\nversion = 1\n[options]\ninstall_requires =\n    gamma<2\n"},
		"poetry": {"pyproject.toml": `[tool.poetry]
name = "p"
version = "1"
description = ""
authors = []
[tool.poetry.dependencies]
python = ">=3.11"
gamma = "<2"
[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
`},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := fetch.New(memory.New(), fetch.Options{StateDir: state})
			require.NoError(t, err)
			b, err := Lock(t.Context(), Request{Dir: project(t, files), Python: "3.11", Fetcher: f, StateDir: state, Stderr: t.Output()})
			require.NoError(t, err)
			require.Contains(t, string(b), `name = "gamma"`)
		})
	}
}
