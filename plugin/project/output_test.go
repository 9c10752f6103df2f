package project

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutputs(t *testing.T) {
	dir := checkout(t, `
-- pyproject.toml --
[project]
name = "p"
version = "1"
[tool.pexpress]
exclude = ["/assets"]
[tool.pexpress.output.static]
plugin = "assets"
inputs = ["assets", "extra/one.js"]
[tool.pexpress.output.model]
plugin = "tools/fetch-model"
kind = "model"
inputs = ["."]
-- .gitignore --
*.tmp
-- assets/css/a.css --
-- assets/left.tmp --
-- assets/.env --
-- extra/one.js --
-- extra/two.js --
`)
	p, err := Load(dir)
	require.NoError(t, err)
	require.Len(t, p.Outputs, 2)
	require.Equal(t, "model", p.Outputs[0].Kind, "they are in order of name")
	files, warnings, err := p.OutputFiles(t.Context(), p.Outputs[1])
	require.NoError(t, err)
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	require.Equal(t, []string{"assets/css/a.css", "extra/one.js"}, paths)
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], "assets/.env looks like a secret")
	_, _, err = p.OutputFiles(t.Context(), Output{Name: "x", Inputs: []string{"nowhere"}})
	require.ErrorContains(t, err, "output x")
}

func TestOutputsRefused(t *testing.T) {
	for table, want := range map[string]string{
		"[tool.pexpress.output.\"a b\"]\nplugin = \"x\"\ninputs = [\"a\"]": "is no name for an output",
		"[tool.pexpress.output.a]\ninputs = [\"a\"]":                       "which plugin",
		"[tool.pexpress.output.a]\nplugin = \"x\"":                         "files and directories",
		"[tool.pexpress.output.a]\nplugin = \"x\"\ninputs = [\"../a\"]":    "inside the project",
		"[tool.pexpress.output.a]\nplugin = \"../x\"\ninputs = [\"a\"]":    "path inside the project",
		"[tool.pexpress.output.a]\nplugin = \"x\"\ninput = [\"a\"]":        "input",
	} {
		_, err := Load(checkout(t, "-- pyproject.toml --\n[project]\nname = \"p\"\nversion = \"1\"\n"+table+"\n"))
		require.ErrorContains(t, err, want)
	}
}
