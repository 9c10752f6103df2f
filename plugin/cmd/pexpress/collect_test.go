package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCollect empties the cache while builds run: each build brings again what it has lost, and gives the right digests.
func TestCollect(t *testing.T) {
	want := goldenDigests(t)
	dir, home := filepath.Join(t.TempDir(), "checkout"), t.TempDir()
	r := rand.New(rand.NewPCG(3, 3))
	writeFixture(t, dir, r)
	buildDigests(t, dir, home)
	for i := range 8 {
		edit := filepath.Join(dir, "src/jitter/a_b.py")
		require.NoError(t, os.WriteFile(edit, []byte(fmt.Sprintf("A = %d\n", i+2)), 0o644))
		gc := exec.Command(binary, "cache", "gc", "--max-size", "0")
		gc.Env = append(os.Environ(), "PEXPRESS_HOME="+home)
		pause, done := time.Duration(r.IntN(80))*time.Millisecond, make(chan error, 1)
		go func() {
			time.Sleep(pause)
			done <- gc.Run()
		}()
		got := buildDigests(t, dir, home)
		require.Equal(t, want["deps.pex root"], got["deps.pex root"])
		require.NoError(t, <-done)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "src/jitter/a_b.py"), []byte(fixture["src/jitter/a_b.py"]), 0o644))
	require.Equal(t, want, buildDigests(t, dir, home))
}
