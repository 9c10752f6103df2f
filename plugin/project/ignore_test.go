package project

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// gitIgnored asks git itself which of paths, each a file, its rules ignore.
func gitIgnored(t require.TestingT, repo string, paths []string) map[string]bool {
	cmd := exec.Command("git", "-C", repo, "check-ignore", "--no-index", "-z", "--stdin")
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\x00") + "\x00")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil {
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 1, exit.ExitCode(), "git check-ignore: %s", stderr.String()) // 1: none is ignored
	}
	ignored := map[string]bool{}
	for p := range strings.SplitSeq(string(out), "\x00") {
		ignored[p] = p != ""
	}
	return ignored
}

// oursIgnored applies the rules the way the walk does: a directory that is ignored hides what is below.
func oursIgnored(files map[string]string, path string) bool {
	var r *rules
	dir := ""
	for {
		if text, ok := files[dir+".gitignore"]; ok {
			r = parseRules(text, dir, r)
		}
		i := strings.IndexByte(path[len(dir):], '/')
		if i < 0 {
			return r.match(path, false)
		}
		if r.match(path[:len(dir)+i], true) {
			return true
		}
		dir = path[:len(dir)+i+1]
	}
}

func gitRepo(t testing.TB) string {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	repo := t.TempDir()
	require.NoError(t, exec.Command("git", "init", "-q", repo).Run())
	return repo
}

func TestIgnoreAgreesWithGit(t *testing.T) {
	repo := gitRepo(t)
	ignoreFiles := map[string]string{
		".gitignore": "\ufeff*.log\n!keep.log\n\n# comment\n\\#hash\n\\!bang\n/anchored\ndirs/\ndoc/**/*.pdf\n**/deep\n" +
			"a/**/b\nlogs/**\nspace\\ \ntrailing   \ncrlf\r\n[a-c]x\n[!a-c]y\n[[:digit:]]z\nfoo**bar\n/q?z\n" +
			"sub/*.tmp\n!sub/keep.tmp\nout/*\n!out/in\nback\\\\slash\n[]]w\n[broken\nend\\\n***\\*x\ntri/***/x\n***/tri2\n",
		"sub/.gitignore":        "!*.log\n/only\nnested/*\n!nested/yes\n",
		"sub/deeper/.gitignore": "*\n!*.py\n!.gitignore\n",
	}
	paths := []string{
		"x.log", "keep.log", "a/keep.log", "#hash", "!bang", "anchored", "a/anchored", "dirs", "dirs/f", "a/dirs/f",
		"doc/x.pdf", "doc/a/b/x.pdf", "x.pdf", "deep", "p/q/deep", "p/deep/f", "a/b", "a/x/b", "a/x/y/b/f", "b", "logs/f",
		"logs/a/f", "space ", "space", "trailing", "trailing   ", "crlf", "ax", "dx", "ay", "dy", "1z", "xz", "foobar",
		"foo12bar", "foo/bar", "qaz", "a/qaz", "q/z", "sub/a.tmp", "sub/keep.tmp", "sub/x/a.tmp", "out/f", "out/in",
		"out/in/f", "sub/x.log", "sub/only", "sub/x/only", "sub/nested/no", "sub/nested/yes", "sub/nested/yes/f",
		"sub/deeper/f.txt", "sub/deeper/f.py", "sub/deeper/d/f.py", "back\\slash", "]w", "[broken", "end\\", "end", "z*x",
		"é", "sub/é.log", "tri/x", "tri/a/b/x", "tri2", "a/b/tri2",
	}
	for name, text := range ignoreFiles {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(repo, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(repo, name), []byte(text), 0o644))
	}
	want := gitIgnored(t, repo, paths)
	for _, p := range paths {
		require.Equal(t, want[p], oursIgnored(ignoreFiles, p), "%q: git says ignored=%v", p, want[p])
	}
}

// Patterns and paths from a small alphabet, so that they often match.
func TestIgnoreAgreesWithGitOnRandomPatterns(t *testing.T) {
	repo := gitRepo(t)
	piece := rapid.SampledFrom([]string{"a", "b", "*", "**", "?", "/", "[ab]", "[!a]", "[^b-z]", "\\*", "\\", "!", " ", "[a", "]", "a-", "#", "[[:alpha:]]", "[]-a]"})
	name := rapid.StringMatching(`[ab*! -]{1,3}`)
	rapid.Check(t, func(rt *rapid.T) {
		var text strings.Builder
		for range rapid.IntRange(1, 4).Draw(rt, "lines") {
			text.WriteString(strings.Join(rapid.SliceOfN(piece, 1, 6).Draw(rt, "pattern"), "") + "\n")
		}
		var paths []string
		for range 12 {
			paths = append(paths, strings.Join(rapid.SliceOfN(name, 1, 4).Draw(rt, "path"), "/"))
		}
		require.NoError(rt, os.WriteFile(filepath.Join(repo, ".gitignore"), []byte(text.String()), 0o644))
		want := gitIgnored(rt, repo, paths)
		for _, p := range paths {
			require.Equal(rt, want[p], oursIgnored(map[string]string{".gitignore": text.String()}, p),
				"patterns %q, path %q", text.String(), p)
		}
	})
}

func TestReaches(t *testing.T) {
	r := parseRules("/build/keep/*.txt\n", "", nil)
	require.True(t, r.reaches("build"))
	require.True(t, r.reaches("build/keep"))
	require.False(t, r.reaches("build/other"))
	require.False(t, r.reaches("dist"))
	require.True(t, parseRules("*.txt", "", nil).reaches("anything"))
	require.True(t, parseRules("a/**/x", "", nil).reaches("a/b/c"))
	require.False(t, (*rules)(nil).reaches("a"))
}
