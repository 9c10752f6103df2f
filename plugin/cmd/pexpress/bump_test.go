package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// stored builds the project and returns how many bytes the cache did not have.
func stored(t *testing.T, dir, home string) int64 {
	cmd := exec.Command(binary, "build", "--output", "json")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PEXPRESS_HOME="+home)
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	for line := range strings.Lines(string(out)) {
		var e struct {
			Event string
			Bytes int64
		}
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		if e.Event == "stored" {
			return e.Bytes
		}
	}
	require.Fail(t, "no stored event", "%s", out)
	return 0
}

// TestBump holds the budget for one bumped wheel, with 77 others beside it as a real project has: what is shipped is
// that wheel and at most 64 KiB.
func TestBump(t *testing.T) {
	dir, home := filepath.Join(t.TempDir(), "checkout"), t.TempDir()
	writeFixture(t, dir, rand.New(rand.NewPCG(1, 1)))
	wheels := map[string][]byte{}
	add := func(name, version string) []byte {
		filling := map[string]string{name + "/data.py": "X = 1\n" + strings.Repeat("# "+name+version+"\n", 5000)}
		b, err := makeWheel(name, version, "py3-none-any", filling)
		require.NoError(t, err)
		path := fmt.Sprintf("wheels/%s-%s-py3-none-any.whl", name, version)
		wheels[path] = b
		require.NoError(t, os.WriteFile(filepath.Join(dir, path), b, 0o644))
		return b
	}
	lock := func() {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "pylock.toml"), []byte(lockOf(wheels)), 0o644))
	}
	// The wheels lie in the checkout, and are no part of the project.
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("/wheels\n"), 0o644))
	add("alpha", "1.0")
	add("beta", "2.1")
	for i := range 76 {
		add(fmt.Sprintf("filler%02d", i), "1.0")
	}
	lock()
	require.Positive(t, stored(t, dir, home))
	require.Zero(t, stored(t, dir, home))
	delete(wheels, "wheels/alpha-1.0-py3-none-any.whl")
	bumped := int64(len(add("alpha", "1.1")))
	lock()
	got := stored(t, dir, home)
	t.Logf("a wheel of %d bytes was bumped, %d bytes were shipped", bumped, got)
	require.GreaterOrEqual(t, got, bumped)
	require.LessOrEqual(t, got, bumped+64<<10)
	require.Zero(t, stored(t, dir, home))
}
