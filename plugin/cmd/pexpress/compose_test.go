package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// composeRun runs a command of those for build tools, with no home and no cache, and returns what it wrote.
func composeRun(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = dir, append([]string{"PATH=/nonexistent"}, env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", args)
	return string(out)
}

// TestComposeGolden holds that what build tools compose has the digests that `pexpress build` gives, whatever umask, time
// zone, locale and path.
func TestComposeGolden(t *testing.T) {
	want := goldenDigests(t)
	pexWheel, err := filepath.Glob(filepath.Join(os.Getenv("PIP_FIND_LINKS"), "pex-*.whl"))
	require.NoError(t, err)
	require.Len(t, pexWheel, 1)
	for i := range 3 {
		old := syscall.Umask([]int{0o022, 0o077, 0o000}[i])
		dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", i), "checkout")
		writeFixture(t, dir, rand.New(rand.NewPCG(uint64(i), 9)))
		env := []string{"TZ=" + []string{"UTC", "Asia/Kathmandu", "America/St_Johns"}[i], "LC_ALL=" + []string{"C", "tr_TR.UTF-8", "C.UTF-8"}[i]}
		target := "3.11:manylinux_2_28_x86_64"
		var selected selection
		out := composeRun(t, dir, env, "lock", "select", "--lock", "pylock.toml", "--target", target)
		require.NoError(t, json.Unmarshal([]byte(out), &selected))
		require.NotEmpty(t, selected.Targets[target])

		outs := t.TempDir()
		at := func(name string) string { return filepath.Join(outs, name) }
		composeRun(t, dir, env, "compose", "bootstrap", "--wheel", pexWheel[0], "--out", at("bootstrap"))
		shared := []string{"--bootstrap", at("bootstrap"), "--python", "3.11", "--platform", "manylinux_2_28_x86_64"}
		deps := append([]string{"compose", "deps", "--out", at("deps.pex")}, shared...)
		for _, w := range selected.Targets[target] {
			deps = append(deps, "--wheel", w.Path)
		}
		composeRun(t, dir, env, deps...)
		composeRun(t, dir, env, append([]string{"compose", "source", "--project", ".", "--out", at("source.pex")}, shared...)...)
		syscall.Umask(old)
		for _, name := range []string{"deps.pex", "source.pex"} {
			root, _, _ := strings.Cut(composeRun(t, outs, nil, "digest", name), " ")
			require.Equal(t, want[name+" root"], root, "%s, round %d", name, i)
			requireModes(t, at(name))
		}
	}
}

// requireModes requires that every file and directory has the mode of a canonical tree.
func requireModes(t *testing.T, dir string) {
	require.NoError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode()&os.ModeSymlink == 0 && info.Mode().Perm() != 0o755 {
			err = fmt.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	}))
}
