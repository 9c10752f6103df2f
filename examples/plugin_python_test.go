package examples

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPluginPython installs the builder in Python, checks that it conforms, and has it make a third tree of a project.
func TestPluginPython(t *testing.T) {
	clients(t) // grpcio comes from the index
	env := filepath.Join(t.TempDir(), "assets")
	install := exec.Command("plugin-python/install.sh", env)
	out, err := install.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Setenv("PATH", filepath.Join(env, "bin")+":"+os.Getenv("PATH"))
	lines := strings.Count(readString("plugin-python/pexpress_plugin_assets.py"), "\n")
	require.LessOrEqual(t, lines, 150)

	project := webProject("one")
	project["pyproject.toml"] = strings.Replace(project["pyproject.toml"], "python = \"3.11\"\n",
		"python = \"3.11\"\nexclude = [\"/assets\"]\n[tool.pexpress.output.static]\nplugin = \"assets\"\ninputs = [\"assets\"]\n", 1)
	project["assets/css/site.css"] = "/* a comment */\nbody { color: black; }\n"
	project["assets/js/app.js"] = "// a comment\nconsole.log(1);\n"
	project["assets/same.js"] = "console.log(1);\n"
	project["web/word.py"] = `import json, os, pathlib
static = pathlib.Path(os.environ["PEXPRESS_OUTPUT_STATIC"])
WORD = (static / json.loads((static / "manifest.json").read_text())["assets/css/site.css"]).read_text()
`
	h := newHost(t, project)
	checked := h.run("plugin", "test", "assets")
	require.NotRegexp(t, `(?m)^FAILED`, checked.stdout)
	require.NotContains(t, checked.stdout, "skipped")
	require.GreaterOrEqual(t, strings.Count(checked.stdout, "\nok "), 15, "%s", checked.stdout)

	h.start()
	address, events := h.deploy()
	require.Equal(t, "body { color: black; }", h.get(address, "/"))
	built := find(events, "built", "output", "static")
	require.Equal(t, false, built["hit"])

	_, events = h.deploy()
	require.Equal(t, true, find(events, "built", "output", "static")["hit"])
	require.Equal(t, true, find(events, "deployed", "", "")["unchanged"])

	require.Contains(t, h.run("explain").stdout, "static of web: cache hit, nothing to do; the last build was the same")
	require.Equal(t, "body { color: black; }", strings.TrimSpace(h.run("run", "--", "-c", "from web.word import WORD; print(WORD)").stdout))
	packed := filepath.Join(t.TempDir(), "packed")
	require.Contains(t, h.run("export", "--layout", "packed", "--out", packed).stdout, "PEXPRESS_OUTPUT_STATIC="+packed+"/static ")
	require.FileExists(t, filepath.Join(packed, "static", "manifest.json"))
	r, err := h.try("export", "--out", filepath.Join(t.TempDir(), "app.pex"))
	require.Error(t, err)
	require.Contains(t, r.stderr, "a zipapp has no place for the output static of the project: pass --layout packed")

	h.write("assets/css/site.css", "body { color: white; }\n")
	require.Contains(t, h.run("explain").stdout, "\n  changed  inputs/assets/css/site.css")
	_, events = h.deploy()
	require.Equal(t, "body { color: white; }", h.get(address, "/"))
	require.Equal(t, false, find(events, "built", "output", "static")["hit"])
	require.Equal(t, true, find(events, "built", "output", "source.pex")["hit"], "the assets are no part of source.pex")
	require.Equal(t, true, find(events, "built", "output", "deps.pex")["hit"])
	white := find(events, "built", "output", "static")["root"]
	require.NotEqual(t, built["root"], white)

	h.run("rollback", "web")
	require.Equal(t, "body { color: black; }", h.get(address, "/"), "a version has its own")

	// A comment changes an input and no output: the Action is another, the tree is the same.
	h.write("assets/css/site.css", "/* another */\nbody { color: white; }\n")
	_, events = h.deploy()
	again := find(events, "built", "output", "static")
	require.Equal(t, false, again["hit"])
	require.Equal(t, white, again["root"])

	h.write("assets/big.js", strings.Repeat("x", 4<<20))
	r, err = h.try("build")
	require.Error(t, err)
	require.Equal(t, 3, r.code, "%s", r.stderr)
	require.Contains(t, r.stderr, "output static: build static: invalid action: an asset of 4194305 bytes")
}

// TestPluginMissing names a plugin that is not installed.
func TestPluginMissing(t *testing.T) {
	project := webProject("one")
	project["pyproject.toml"] += "[tool.pexpress.output.static]\nplugin = \"nowhere\"\ninputs = [\"web\"]\n"
	h := newHost(t, project)
	r, err := h.try("build", "--output", "json")
	require.Error(t, err)
	require.Equal(t, 3, r.code)
	var e map[string]any
	last := strings.TrimSpace(r.stdout)
	require.NoError(t, json.Unmarshal([]byte(last[strings.LastIndex(last, "\n")+1:]), &e))
	require.Contains(t, e["message"], "there is no pexpress-plugin-nowhere on PATH: install it")
	r, err = h.try("plugin", "test", "./nowhere")
	require.Error(t, err)
	require.Equal(t, 4, r.code, "%s", r.stdout)
	require.Contains(t, r.stdout, "FAILED   handshake")
}
