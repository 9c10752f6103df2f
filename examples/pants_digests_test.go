package examples

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPantsDigests packages the example with Pants and builds it with pexpress, elsewhere: every file's digest and the
// roots' are the same, for a service that is a project and for those that Pants' targets describe.
func TestPantsDigests(t *testing.T) {
	r := newPantsRepo(t)
	r.host().run("package", "services::")

	t.Run("project", func(t *testing.T) {
		elsewhere := filepath.Join(t.TempDir(), "a checkout")
		require.NoError(t, os.CopyFS(elsewhere, os.DirFS(r.dir)))
		require.NoError(t, os.RemoveAll(filepath.Join(elsewhere, "dist")))
		out := filepath.Join(t.TempDir(), "greet")
		r.pexpress("-C", filepath.Join(elsewhere, "services/greet"), "export", "--layout", "packed", "--out", out)
		sameTrees(t, r, out, "services.greet")
	})
	for service, code := range map[string]string{"tally": "app.py", "clock": "main.py"} {
		t.Run(service, func(t *testing.T) {
			// A project whose location is a directory with the same files in the same places.
			project := t.TempDir()
			write := func(name, content string) { writeTree(t, project, map[string]string{name: content}) }
			write("pylock.toml", r.read("3rdparty/pylock.toml"))
			write("pexpress.toml", "python = \"3.11\"\n[location."+service+"]\npreset = \"module\"\nmodule = \"x\"\n"+
				"directory = \"tree\"\nlock = \"pylock.toml\"\nsource-roots = [\"libs/common/src\", \"services/"+service+"\"]\n")
			for _, name := range []string{
				"libs/common/src/common/__init__.py", "libs/common/src/common/words.py", "libs/common/src/common/greeting.txt",
				"services/" + service + "/" + service + "/__init__.py", "services/" + service + "/" + service + "/" + code,
			} {
				write("tree/"+name, r.read(name))
			}
			out := filepath.Join(t.TempDir(), service)
			r.pexpress("-C", project, "export", "--layout", "packed", "--out", out)
			sameTrees(t, r, out, "services."+service)
		})
	}
}

// sameTrees compares what pexpress has exported with what Pants has packaged.
func sameTrees(t *testing.T, r *pantsRepo, exported, packaged string) {
	for _, name := range []string{"deps.pex", "source.pex"} {
		want := r.tree(filepath.Join(exported, name))
		require.Contains(t, want, "PEX-INFO")
		require.Equal(t, want, r.tree(r.path("dist/"+packaged+"/deploy/"+name)), "%s of %s", name, packaged)
	}
}
