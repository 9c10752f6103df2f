package resolve

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInputs(t *testing.T) {
	const tools = "[tool.black]\nline-length = 100\n"
	for want, files := range map[string]map[string]string{
		"requirements.txt setup.py": {"pyproject.toml": tools, "requirements.txt": "", "setup.py": ""},
		"uv.lock":                   {"uv.lock": "", "pyproject.toml": pyproject, "requirements.txt": ""},
		"pyproject.toml":            {"pyproject.toml": pyproject, "requirements.txt": "", "setup.py": ""},
		"requirements.txt":          {"pyproject.toml": tools, "requirements.txt": "", "setup.cfg": "[options]"},
		"setup.cfg":                 {"setup.cfg": "[metadata]\nname = p\n", "setup.py": ""},
		"setup.py":                  {"setup.cfg": "[flake8]\nmax-line-length = 100\n", "setup.py": ""},
	} {
		r := Request{Dir: project(t, files)}
		got, err := r.inputs()
		require.NoError(t, err)
		require.Equal(t, strings.Fields(want), got)
	}
	poetry := Request{Dir: project(t, map[string]string{"pyproject.toml": "[build-system]\n[ tool . poetry ]\n"})}
	got, err := poetry.inputs()
	require.NoError(t, err)
	require.Equal(t, []string{"pyproject.toml"}, got)
}

func TestNoInputs(t *testing.T) {
	for _, files := range []map[string]string{{}, {"pyproject.toml": "[tool.black]\n", "setup.cfg": "[flake8]\n"}} {
		dir := project(t, files)
		_, err := Lock(t.Context(), Request{Dir: dir})
		require.ErrorIs(t, err, ErrResolve)
		require.ErrorContains(t, err, dir)
		require.ErrorContains(t, err, "name a file with requirements")
	}
}

func TestSetupCfgAlone(t *testing.T) {
	dir := project(t, map[string]string{"setup.cfg": "[options]\ninstall_requires = beta\n", "sub/setup.py": ""})
	_, err := Lock(t.Context(), Request{Dir: dir})
	require.ErrorIs(t, err, ErrResolve)
	require.ErrorContains(t, err, "build-backend")
}
