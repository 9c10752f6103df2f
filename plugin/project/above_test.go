package project

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAbove(t *testing.T) {
	dir := checkout(t, `
-- pyproject.toml --
[tool.pexpress]
python = "3.11"
-- src/pkg/a.py --
-- api/pyproject.toml --
[project]
name = "api"
-- api/src/a.py --
-- dagster/dagster_cloud.yaml --
locations: []
-- dagster/src/a.py --
-- own/pexpress.toml --
-- own/sub/a.py --
-- broken/pyproject.toml --
[tool.pexpress
-- broken/src/a.py --
`)
	for name, want := range map[string]string{
		".": "", "src": ".", "src/pkg": ".", "api": ".", "api/src": ".", "dagster": "", "dagster/src": "dagster", "own": "", "own/sub": "own",
		"broken/src": ".",
	} {
		if want != "" {
			want = filepath.Join(dir, want)
		}
		require.Equal(t, want, Above(filepath.Join(dir, name)), name)
	}
	require.Empty(t, Above(filepath.Join(checkout(t, "-- src/a.py --\n"), "src")))
}
