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

// TestBazelCross builds deps.pex for every Python and platform of the example in one build, compares each with what
// `pexpress build` makes, and runs those of this machine.
func TestBazelCross(t *testing.T) {
	s := newShop(t)
	counts := mnemonics(s.build(append(hermetic, "//:deps_everywhere")...))
	require.Equal(t, map[string]int{"PexBootstrap": 1, "PexDeps": 20}, counts)
	b, err := os.ReadFile(filepath.Join(s.workspace, "bazel-bin/deps_everywhere.json"))
	require.NoError(t, err)
	trees := map[string]string{}
	require.NoError(t, json.Unmarshal(b, &trees))
	require.Len(t, trees, 20)
	roots := map[string]bool{}
	for target, tree := range trees {
		python, platform, _ := strings.Cut(target, ":")
		root := s.files(filepath.Join(s.workspace, tree))[0]
		roots[root] = true
		require.Equal(t, s.built(python, platform), root, target)
		if platform == "manylinux_2_28_x86_64" {
			runs(t, python, filepath.Join(s.workspace, tree))
		}
	}
	require.Len(t, roots, 20, "no two targets have the same wheels")
}

// built is the root of the deps.pex that `pexpress build` makes for a target.
func (s *shop) built(python, platform string) string {
	out := s.pexpress("build", "orders", "--python", python, "--platform", platform, "--output", "json")
	for line := range strings.Lines(out) {
		var e struct{ Event, Output, Root string }
		require.NoError(s.t, json.Unmarshal([]byte(line), &e), "%s", line)
		if e.Event == "built" && e.Output == "deps.pex" {
			return e.Root
		}
	}
	require.Fail(s.t, "no deps.pex", "%s", out)
	return ""
}

// runs imports what a deps.pex has, compiled modules among it, if that Python is on this machine.
func runs(t *testing.T, version, tree string) {
	found, err := filepath.Glob(filepath.Join(os.Getenv("HOME"), ".pyenv/versions", version+".*/bin/python"+version))
	require.NoError(t, err)
	if path, err := exec.LookPath("/usr/bin/python" + version); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		t.Logf("no Python %s here to run %s with", version, tree)
		return
	}
	cmd := exec.Command(found[0], tree, "-c", "import starlette, sqlalchemy, markupsafe._speedups, pydantic_core, sys; print('%d.%d' % sys.version_info[:2])")
	cmd.Env = append(os.Environ(), "PEX_ROOT="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, version, strings.TrimSpace(string(out)))
}
