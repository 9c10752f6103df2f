package examples

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/plugin/ci"
)

// TestCIPushes follows a repository on GitHub through a first push, a second one, a branch and its end.
func TestCIPushes(t *testing.T) {
	f := newForge(t)
	j := f.pushed("main", f.push("main"))
	require.Zero(t, j.code, "%s", j)
	require.Equal(t, "full", j.outputs["kind"], "%s", j)
	require.Equal(t, "web", j.outputs["location"])
	address := f.locations()["web"]
	require.Equal(t, "http://"+address, j.outputs["url"])
	require.Equal(t, "one", f.get(address, "/"))
	for _, what := range []string{"full deploy", "| deps.pex | `" + j.outputs["deps-digest"], "| source.pex | `" + j.outputs["source-digest"], "rebuilt", "| ready |", "Shipped: "} {
		require.Contains(t, j.summary, what)
	}
	require.Contains(t, j.comment, j.outputs["url"])
	require.Contains(t, j.comment, "https://github.example/org/app/actions/runs/42")
	require.GreaterOrEqual(t, f.asked.Load(), int64(2), "the cache and the codeserver are shown tokens")
	require.NotContains(t, strings.ReplaceAll(j.log, "::add-mask::", ""), "request-token")

	f.write("web/word.py", "WORD = \"two\"\n")
	second := f.pushed("main", f.push("main"))
	require.Equal(t, "fast", second.outputs["kind"], "%s", second)
	require.Equal(t, j.outputs["deps-digest"], second.outputs["deps-digest"])
	require.NotEqual(t, j.outputs["source-digest"], second.outputs["source-digest"])
	require.Contains(t, second.summary, "from the cache")
	require.Equal(t, "two", f.get(address, "/"))
	require.Equal(t, "unchanged", f.pushed("main", f.git("rev-parse", "HEAD")).outputs["kind"])

	f.write("web/word.py", "WORD = \"branch\"\n")
	branch := f.pushed("feature/Ünsafe`$(name)`", f.push("feature/Ünsafe`$(name)`"))
	require.Equal(t, "fast", branch.outputs["kind"], "its deps.pex is main's: %s", branch)
	name := ci.BranchName("web", repositoryID, "feature/Ünsafe`$(name)`")
	require.Equal(t, name, branch.outputs["location"])
	require.Equal(t, "branch", f.get(f.locations()[name], "/"))
	require.Equal(t, "two", f.get(address, "/"), "main is what it was")

	again := f.deleted("feature/Ünsafe`$(name)`")
	require.Contains(t, again.log, "there is a branch")
	require.Contains(t, f.locations(), name, "the branch was not deleted, or is there again")
	f.git("push", "-q", "origin", "--delete", "feature/Ünsafe`$(name)`")
	gone := f.deleted("feature/Ünsafe`$(name)`")
	require.Zero(t, gone.code, "%s", gone)
	require.Equal(t, "removed", gone.outputs["kind"])
	require.NotContains(t, f.locations(), name)
	require.Contains(t, f.locations(), "web")
	late := f.pushed("feature/Ünsafe`$(name)`", f.git("rev-parse", "HEAD"))
	require.Equal(t, "superseded", late.outputs["kind"], "a run that is late brings nothing back: %s", late)
	require.NotContains(t, f.locations(), name)
}

// TestCIOrder runs the pipeline of an older push after the newer one's.
func TestCIOrder(t *testing.T) {
	f := newForge(t)
	older := f.push("main")
	f.write("web/word.py", "WORD = \"newer\"\n")
	newer := f.push("main")
	require.Equal(t, "full", f.pushed("main", newer).outputs["kind"])
	f.git("checkout", "-q", "--detach", older)
	j := f.pushed("main", older)
	require.Zero(t, j.code, "%s", j)
	require.Equal(t, "superseded", j.outputs["kind"], "%s", j)
	require.Equal(t, "newer", f.get(f.locations()["web"], "/"))

	f.git("remote", "set-url", "origin", filepath.Join(t.TempDir(), "nowhere"))
	j = f.pushed("main", newer)
	require.Equal(t, 6, j.code, "%s", j)
	require.Contains(t, j.summary, "nothing is deployed, for a later push could be undone")
}

// TestCIPullRequest builds pull requests of the repository and of a fork.
func TestCIPullRequest(t *testing.T) {
	f := newForge(t)
	f.pushed("main", f.push("main"))
	f.write("web/word.py", "WORD = \"pull\"\n")
	sha := f.push("topic")
	f.home = t.TempDir() // another runner
	f.asked.Store(0)
	j := f.pull("topic", sha, "org/app", nil)
	require.Zero(t, j.code, "%s", j)
	require.Equal(t, "built", j.outputs["kind"])
	require.Contains(t, j.log, "/pr-7", "%s", j)
	require.Regexp(t, `deps.pex .*from the cache`, j.summary, "the overlay reads what main has")
	require.Regexp(t, `source.pex .*rebuilt`, j.summary)
	require.NotContains(t, j.summary, "Warning")
	require.Len(t, f.locations(), 1, "a pull request deploys nothing")
	branch := f.pushed("topic", sha)
	require.Regexp(t, `source.pex .*rebuilt`, branch.summary, "nothing of the overlay is seen in main: %s", branch)
	linked := f.pull("topic", sha, "org/app", nil)
	require.Contains(t, linked.comment, branch.outputs["url"], "the pull request's comment leads to the branch's deployment")

	f.asked.Store(0)
	secret := "PEXPRESS_CACHE_TOKEN=codeserver-codeserver-codeserver-0"
	name, value, _ := strings.Cut(secret, "=")
	before := f.cache.called("GetActionResult")
	fork := f.pull("topic", sha, "stranger/app", map[string]string{name: value})
	require.Zero(t, fork.code, "%s", fork)
	require.Equal(t, "built", fork.outputs["kind"])
	require.Zero(t, f.asked.Load(), "a fork's job asks for no token")
	for _, r := range f.cache.requests("GetActionResult")[before:] {
		require.Equal(t, "Unauthenticated", r.Code, "and shows none that is there: the cache does not know who asks")
	}
	require.Contains(t, fork.summary, "the build goes on with the cache of this machine's disk")
	require.NotContains(t, fork.comment, branch.outputs["url"])
}

// TestCIFailures builds what cannot be built or does not start.
func TestCIFailures(t *testing.T) {
	f := newForge(t)
	f.pushed("main", f.push("main"))
	project := readString(filepath.Join(f.checkout, "pyproject.toml"))
	f.write("pyproject.toml", project+"preset = \"nonsense\"\n")
	j := f.pushed("main", f.push("main"))
	require.Equal(t, 3, j.code, "%s", j)
	require.Equal(t, "failed", j.outputs["kind"])
	require.Regexp(t, `(?m)^::error file=pyproject\.toml,line=\d+,title=[^:]*::.*preset`, j.log)

	f.write("pyproject.toml", project)
	f.write("web/word.py", "x = 1\nraise RuntimeError('no % good\\n::error::injected\\n##[error]x')\n")
	j = f.pushed("main", f.push("main"))
	require.Equal(t, 5, j.code, "%s", j)
	require.Regexp(t, `(?m)^::error file=web/word\.py,line=2,title=[^\n]*%0A[^\n]*RuntimeError: no %25 good`, j.log)
	require.NotRegexp(t, `(?m)^\s*::error::injected`, j.log, "a program's words are no commands")
	require.Contains(t, j.summary, "RuntimeError: no % good")
	require.Equal(t, "one", f.get(f.locations()["web"], "/"), "the old version goes on serving")
}

// TestCICacheAway builds and deploys while the cache is down.
func TestCICacheAway(t *testing.T) {
	f := newForge(t)
	f.pushed("main", f.push("main"))
	require.NoError(t, syscall.Kill(f.cache.pid, syscall.SIGKILL))
	j := f.pushed("main", f.git("rev-parse", "HEAD"))
	require.Zero(t, j.code, "what is served already needs no cache: %s", j)
	require.Equal(t, "unchanged", j.outputs["kind"])
	require.Contains(t, j.log, "::warning title=pexpress::cache "+f.remote)
	require.Contains(t, j.summary, "the build goes on with the cache of this machine's disk")

	f.write("web/word.py", "WORD = \"two\"\n")
	sha := f.push("main")
	j = f.pushed("main", sha)
	require.Equal(t, 6, j.code, "built, and the codeserver cannot fetch it: %s", j)
	require.Regexp(t, `source.pex .*rebuilt`, j.summary)
	j = f.pull("main", sha, "org/app", nil)
	require.Zero(t, j.code, "%s", j)
	require.Equal(t, "built", j.outputs["kind"])
	require.Equal(t, "one", f.get(f.locations()["web"], "/"))
	require.NoFileExists(t, filepath.Join(f.checkout, "pexpress-ci"))
	_, err := os.Stat(filepath.Join(f.home, "cache"))
	require.NoError(t, err)
}
