package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/plugin/pex"
)

// fixture is a small project with what could make a digest depend on the machine: several roots, data, links, metadata,
// names that sort differently by locale, dotfiles.
var fixture = map[string]string{
	"pyproject.toml": "[project]\nname = \"jitter\"\nversion = \"1.2.3\"\ndependencies = [\"alpha\", \"beta\"]\n" +
		"[tool.pexpress]\npython = \"3.11\"\ninclude = [\".settings\"]\n" +
		"[tool.pexpress.location.jitter]\npreset = \"module\"\nmodule = \"jitter\"\n",
	"src/jitter/__init__.py":     "import alpha\n",
	"src/jitter/__main__.py":     "print('hello')\n",
	"src/jitter/data/b.csv":      "1,2\n",
	"src/jitter/data/Ä umlaut.t": "é\n",
	"src/jitter/a_b.py":          "A = 1\n",
	"src/jitter/aB.py":           "B = 2\n",
	".settings":                  "x = 1\n",
	"big.bin":                    strings.Repeat("0123456789abcdef", 40_000),
}

// writeFixture writes the fixture's files in a shuffled order, with modes and times of its own.
func writeFixture(t *testing.T, dir string, r *rand.Rand) {
	wheels := map[string][]byte{}
	for _, w := range []struct{ name, version string }{{"alpha", "1.0"}, {"beta", "2.1"}} {
		b, err := makeWheel(w.name, w.version, "py3-none-any", map[string]string{w.name + "/__init__.py": "X = 1\n"})
		require.NoError(t, err)
		wheels[fmt.Sprintf("wheels/%s-%s-py3-none-any.whl", w.name, w.version)] = b
	}
	files := map[string][]byte{"pylock.toml": []byte(lockOf(wheels))}
	for name, content := range fixture {
		files[name] = []byte(content)
	}
	for name, content := range wheels {
		files[name] = content
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, files[name], fs.FileMode(0o600|r.IntN(0o200))))
		when := time.Unix(r.Int64N(1_900_000_000), r.Int64N(1e9))
		require.NoError(t, os.Chtimes(path, when, when))
	}
	require.NoError(t, os.Symlink("data/b.csv", filepath.Join(dir, "src/jitter/link.csv")))
}

// digests is what two builds of the same inputs must agree on.
type digests map[string]string

// buildDigests builds the project in dir with the test binary as pexpress and returns its actions and roots.
func buildDigests(t *testing.T, dir, home string, env ...string) digests {
	cmd := exec.Command(binary, "build", "--output", "json")
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "PEXPRESS_HOME="+home), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	return parseDigests(t, string(out))
}

func parseDigests(t *testing.T, out string) digests {
	got := digests{}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var e struct{ Event, Output, Action, Root string }
		require.NoError(t, json.Unmarshal([]byte(line), &e), "%s", line)
		if e.Event == "built" {
			got[e.Output+" action"], got[e.Output+" root"] = e.Action, e.Root
		}
	}
	require.Len(t, got, 4, "two outputs, each with an action and a root: %s", out)
	return got
}

// TestJitter builds one project in surroundings that differ in everything that must not matter.
func TestJitter(t *testing.T) {
	rounds := 4
	if os.Getenv("PEXPRESS_SOAK") != "" {
		rounds = 40
	}
	want := goldenDigests(t)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for x := 1; ; x++ {
			select {
			case <-stop:
				return
			default:
				_ = x * x
			}
		}
	})
	defer busy.Wait()
	defer close(stop)
	zones := []string{"UTC", "Asia/Kathmandu", "America/St_Johns"}
	locales := []string{"C", "C.UTF-8", "tr_TR.UTF-8"}
	pythons := pythonDirs(t)
	for i := range rounds {
		r := rand.New(rand.NewPCG(uint64(i), 7))
		mask := []int{0o022, 0o077, 0o002, 0o000}[i%4]
		old := syscall.Umask(mask)
		dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", r.IntN(5)), fmt.Sprintf("checkout %d", i))
		writeFixture(t, dir, r)
		got := buildDigests(t, dir, t.TempDir(), "TZ="+zones[i%3], "LC_ALL="+locales[i%3], "LANG="+locales[(i+1)%3],
			fmt.Sprintf("PYTHONHASHSEED=%d", i), "HOSTNAME=host"+fmt.Sprint(i),
			"PATH="+pythons[i%len(pythons)]+":"+os.Getenv("PATH"))
		syscall.Umask(old)
		require.Equal(t, want, got, "round %d", i)
	}
}

// pythonDirs returns directories to have on PATH first, each with another python3: those that pyenv has here, as far as
// their pip can say where a wheel is, and at least the tester's own.
func pythonDirs(t *testing.T) []string {
	root := os.Getenv("PYENV_ROOT")
	if root == "" {
		root = filepath.Join(os.Getenv("HOME"), ".pyenv")
	}
	dirs := []string{t.TempDir()}
	found, err := filepath.Glob(filepath.Join(root, "versions/3.*/bin/python3"))
	require.NoError(t, err)
	for _, python := range found {
		help, err := exec.Command(python, "-m", "pip", "install", "--help").Output()
		if err == nil && strings.Contains(string(help), "--report") {
			dirs = append(dirs, filepath.Dir(python))
		}
	}
	t.Logf("%d Pythons beside the one on PATH", len(dirs)-1)
	return dirs
}

const goldenFile = "testdata/digests.json"

// goldenDigests returns the digests of this output version. They hold over time: a change of what the builder writes
// must come with another output version, or every cache hands out stale results. UPDATE_GOLDEN=1 adds those of a new
// version, and refuses to change those of an old one.
func goldenDigests(t *testing.T) digests {
	b, err := os.ReadFile(goldenFile)
	require.NoError(t, err)
	golden := map[string]digests{}
	require.NoError(t, json.Unmarshal(b, &golden))
	if want, ok := golden[pex.OutputVersion]; ok || os.Getenv("UPDATE_GOLDEN") == "" {
		require.True(t, ok, "no golden digests for output version %s: run with UPDATE_GOLDEN=1", pex.OutputVersion)
		return want
	}
	dir := t.TempDir()
	writeFixture(t, dir, rand.New(rand.NewPCG(1, 1)))
	golden[pex.OutputVersion] = buildDigests(t, dir, t.TempDir())
	b, err = json.MarshalIndent(golden, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(goldenFile, append(b, '\n'), 0o644))
	return golden[pex.OutputVersion]
}

// TestMovedLine holds the case in which pex's own hash gives two different projects one name: a line moved from the
// end of one file to the start of the next, or a difference in dotfiles only.
func TestMovedLine(t *testing.T) {
	variant := func(changes map[string]string) digests {
		dir := t.TempDir()
		writeFixture(t, dir, rand.New(rand.NewPCG(1, 1)))
		for name, content := range changes {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
		}
		return buildDigests(t, dir, t.TempDir())
	}
	a := variant(map[string]string{"src/jitter/aB.py": "B = 2\nC = 3\n", "src/jitter/a_b.py": "A = 1\n"})
	b := variant(map[string]string{"src/jitter/aB.py": "B = 2\n", "src/jitter/a_b.py": "C = 3\nA = 1\n"})
	dot := variant(map[string]string{".settings": "x = 2\n"})
	plain := variant(nil)
	roots := map[string]bool{}
	for _, d := range []digests{a, b, dot, plain} {
		require.Equal(t, plain["deps.pex root"], d["deps.pex root"])
		roots[d["source.pex root"]] = true
	}
	require.Len(t, roots, 4, "four projects, four digests")
}
