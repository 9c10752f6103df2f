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

// TestExport runs the Dagster example under plain pex in each layout, with no pexpress there, and has pex's own tools
// read what was written.
func TestExport(t *testing.T) {
	tools := filepath.Join(clients(t), "bin", "pex-tools")
	h := newHost(t, nil)
	require.NoError(t, os.CopyFS(h.project, os.DirFS("dagster-quickstart")))
	root := filepath.Join(h.dir, "pex-root")
	for _, layout := range []string{"packed", "loose", "zipapp"} {
		out := filepath.Join(h.dir, "out-"+layout)
		h.run("export", "--layout", layout, "-o", out)
		main, deps, path := filepath.Join(out, "source.pex"), filepath.Join(out, "deps.pex"), ""
		if layout == "zipapp" {
			main, deps = out, out
		} else {
			path = deps
		}
		const program = "import dagster, pandas, quickstart.definitions, importlib.metadata as m; print(m.version('quickstart'), pandas.__version__)"
		cmd := exec.Command("python3.11", main, "-c", program)
		cmd.Dir = t.TempDir() // not the checkout: what is imported comes from the PEX
		cmd.Env = append(os.Environ(), "PEX_PATH="+path, "PEX_ROOT="+root)
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", layout, said)
		require.True(t, strings.HasPrefix(string(said), "0.1.0 3."), "%s: %s", layout, said)

		for _, pex := range []string{main, deps} {
			said, err = exec.Command(tools, pex, "info").CombinedOutput()
			require.NoError(t, err, "%s: %s", pex, said)
			var info map[string]any
			require.NoError(t, json.Unmarshal(said, &info), "%s", said)
			require.Contains(t, info, "pex_hash")
			if pex == deps {
				require.Len(t, info["distributions"], 51)
			}
		}
	}
}
