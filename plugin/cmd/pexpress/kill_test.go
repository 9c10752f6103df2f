package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestKill kills a build with SIGKILL at a random moment, looks for processes that are left, and builds again on what
// the killed one left behind: the digests are right, and every blob that can be read is whole.
func TestKill(t *testing.T) {
	rounds := 15
	if os.Getenv("PEXPRESS_SOAK") != "" {
		rounds = 200
	}
	want := goldenDigests(t)
	warm := t.TempDir()
	dir := filepath.Join(t.TempDir(), "checkout")
	writeFixture(t, dir, rand.New(rand.NewPCG(1, 1)))
	lockSlowly(t, dir)
	start := time.Now()
	require.Equal(t, want, buildDigests(t, dir, warm))
	whole := time.Since(start)
	killed := 0
	for i := range rounds {
		r := rand.New(rand.NewPCG(uint64(i), 99))
		home := filepath.Join(t.TempDir(), "home")
		marker := fmt.Sprintf("kill-%d-%d", os.Getpid(), i)
		for range 1 + r.IntN(3) {
			if killBuild(t, dir, home, marker, time.Duration(r.Int64N(int64(whole)))) {
				killed++
			}
			requireGone(t, marker)
		}
		require.Equal(t, want, buildDigests(t, dir, home), "round %d", i)
		out, err := exec.Command(binary, "cache", "verify", "--cache", filepath.Join(home, "cache")).CombinedOutput()
		require.NoError(t, err, "round %d: %s", i, out)
	}
	t.Logf("%d rounds, %d builds killed before they ended", rounds, killed)
	require.Positive(t, killed, "no build was killed in time: the test shows nothing")
}

// lockSlowly has the project's lock name its wheels by URLs of a server that takes its time, so that a build is killed
// while it fetches, too. The lock's text is part of no Action: the digests stay.
func lockSlowly(t *testing.T, dir string) {
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files.ServeHTTP(slowWriter{w}, r)
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(dir, "pylock.toml")
	lock, err := os.ReadFile(path)
	require.NoError(t, err)
	lock = bytes.ReplaceAll(lock, []byte(`path = "wheels/`), []byte(`url = "`+server.URL+`/wheels/`))
	require.Contains(t, string(lock), server.URL)
	require.NoError(t, os.WriteFile(path, lock, 0o644))
}

// slowWriter sends an answer in small pieces.
type slowWriter struct{ http.ResponseWriter }

func (w slowWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		piece := b[:min(64, len(b))]
		b = b[len(piece):]
		var m int
		m, err = w.ResponseWriter.Write(piece)
		n += m
		if f, ok := w.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return n, err
}

// killBuild starts a build and kills it after d; it reports whether the build was still running.
func killBuild(t *testing.T, dir, home, marker string, d time.Duration) bool {
	cmd := exec.Command(binary, "build")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PEXPRESS_HOME="+home, "PEXPRESS_TEST_MARKER="+marker)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		require.NoError(t, err, out.String())
		return false
	case <-time.After(d):
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	<-done
	return true
}

// requireGone waits until no process carries the marker in its environment. The builder inherits it unless it is
// sandboxed with an environment of its own; then its parent's death is what ends it, and its name shows it.
func requireGone(t *testing.T, marker string) {
	var left []string
	for range 100 {
		left = processes(marker)
		if len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.Empty(t, left, "processes outlive the build that was killed")
}

// processes lists those whose environment or executable names the marker or the binary under test.
func processes(marker string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		env, _ := os.ReadFile(filepath.Join(d, "environ"))
		args, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if bytes.Contains(env, []byte(marker)) || bytes.Contains(args, []byte(binary)) {
			found = append(found, filepath.Base(d)+" "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}
