package codeserver

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestCrash has the version end by itself, twice: it is started again, later the second time.
func TestCrash(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	d := h.deploy(h.spec(webApp("one")))
	address := d.GetLocation().GetAddress()
	require.Nil(t, h.version("web").GetLastEnding())
	for _, least := range []time.Duration{firstPause, 2 * firstPause} {
		begin := time.Now()
		_, _ = get(address, "/crash")
		eventually(t, func() bool {
			_, err := get(address, "/")
			return err != nil && strings.Contains(err.Error(), "503")
		}, "no version is up")
		await(t, address, "one")
		require.GreaterOrEqual(t, time.Since(begin), least)
		last := h.version("web").GetLastEnding()
		require.Contains(t, last.GetReason(), "status 3", "also when it is up again")
		require.True(t, last.GetTime().AsTime().After(begin))
	}
	_, _ = get(address, "/crash")
	two := h.deploy(h.spec(webApp("two")))
	require.Equal(t, "two", h.get(two, "/"), "a deploy does not wait for the pause")
}

// TestShimKilled kills the process that watches over a version: its own ends, and the version is started again.
func TestShimKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	d := h.deploy(h.spec(webApp("one")))
	pid := h.get(d, "/pid")
	h.s.mu.Lock()
	python := h.s.locations["web"].current.running.worker.PID()
	h.s.mu.Unlock()
	require.Equal(t, pid, strconv.Itoa(python))
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	require.NoError(t, err)
	after := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	shim, err := strconv.Atoi(after[1])
	require.NoError(t, err)
	require.NotEqual(t, os.Getpid(), shim)
	require.NoError(t, syscall.Kill(shim, syscall.SIGKILL))
	eventually(t, func() bool {
		now, err := get(d.GetLocation().GetAddress(), "/pid")
		return err == nil && now != pid
	}, "it is started again")
	require.Len(t, processesOf(h.opts.State), 1, "the one before is gone")
}

// TestKeeperStopped stops the parent of a version that was forked into a sandbox, and ends the version: that is noticed without
// its parent, too.
func TestKeeperStopped(t *testing.T) {
	t.Parallel()
	h := newHost(t, withUsers(t))
	h.deployTo("web", h.spec(prober("one")))
	h.s.zygotes.Wait()
	h.deployTo("web", h.spec(prober("two")))
	require.True(t, h.version("web").GetForked())
	pid := h.s.locations["web"].current.running.worker.PID()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	keeper, err := strconv.Atoi(strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(keeper, syscall.SIGSTOP))
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, func() bool { return h.version("web").GetUsage().GetRestarts() == 1 }, "it is started again")
	eventually(t, func() bool { return syscall.Kill(keeper, 0) != nil }, "and the parent does not stay")
}

// TestDescendants ends what a version has started, wherever it has moved itself, and a version that ignores SIGTERM.
func TestDescendants(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(o *Options) { o.StopGrace = 300 * time.Millisecond })
	app := webApp("one")
	app["app/word.py"] = `import os, signal, subprocess, sys, time
WORD = "one"
if __name__ != "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
`
	h.deploy(h.spec(app))
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 3 }, "the version and two that it started")
	h.deploy(h.spec(webApp("two")))
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 1 }, "only the new version is left")
}

// TestKillSetsid kills the server itself: nothing is left of a version whose descendants have sessions of their own.
func TestKillSetsid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startChild(t, dir)
	defer server.kill()
	app := webApp("one")
	app["app/word.py"] = `import subprocess, sys
WORD = "one"
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
`
	_, err := deployWith(t.Context(), server, &codeserverpb.DeployRequest{Location: "web", Spec: makeSpec(t, diskCache(t, dir), app)})
	require.NoError(t, err)
	require.Len(t, processesOf(dir), 2)
	server.kill()
	eventually(t, func() bool { return len(processesOf(dir)) == 0 }, "no process is left")
}

// TestFlood has a version write 100 MB at once, and go on serving. The server is a process of its own: its memory is
// nobody else's.
func TestFlood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startChild(t, dir)
	defer server.kill()
	app := webApp("one")
	app["app/word.py"] = `import sys, threading
WORD = "one"
def flood():
    line = b"y" * 999 + b"\n"
    for i in range(50):
        sys.stdout.buffer.write(line * 1000)
    sys.stdout.buffer.write(b"the end\n")
    sys.stdout.flush()
threading.Thread(target=flood, daemon=True).start()
`
	d, err := deployWith(t.Context(), server, webRequest(makeSpec(t, diskCache(t, dir), app)))
	require.NoError(t, err)
	var log string
	eventually(t, func() bool {
		logs, err := filepath.Glob(filepath.Join(dir, "state", "logs", "*.log"))
		if err != nil || len(logs) != 1 {
			return false
		}
		log = logs[0]
		return strings.Contains(lastOf(log, 1<<10), "the end\n")
	}, "all is written")
	st, err := os.Stat(log)
	require.NoError(t, err)
	require.LessOrEqual(t, st.Size(), int64(maxLog))
	require.Contains(t, lastOf(log, 64<<10), " lines were left out; ")
	body, err := get(d.GetLocation().GetAddress(), "/")
	require.NoError(t, err)
	require.Equal(t, "one", body)
	require.Less(t, peakMemory(t, server.cmd.Process.Pid), 90<<20)
	left, err := filepath.Glob(filepath.Join(dir, "state", "logs", ".cut*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// lastOf returns the last n bytes of a file, nothing if it can't be read.
func lastOf(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil {
		_, _ = f.Seek(max(0, st.Size()-n), io.SeekStart)
	}
	b, _ := io.ReadAll(f)
	return string(b)
}

// peakMemory returns the most memory that a process has had resident, in bytes.
func peakMemory(t *testing.T, pid int) int {
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var kib int
			_, err := fmt.Sscan(rest, &kib)
			require.NoError(t, err)
			t.Logf("peak of process %d: %d KiB", pid, kib)
			return kib << 10
		}
	}
	require.Fail(t, "no VmHWM")
	return 0
}

// TestCutFollowed follows a log across cuts: no line comes twice, and none is lost that was not cut before it was read.
func TestCutFollowed(t *testing.T) {
	book, err := openLogbook(filepath.Join(t.TempDir(), "x.log"), "web", "v", new(atomic.Int64))
	require.NoError(t, err)
	book.limit = 2000
	seen, step := []int{}, make(chan struct{})
	done := make(chan error)
	r := logReader{path: book.path, book: book, send: func(l logLine) error {
		n, err := strconv.Atoi(l.text)
		seen = append(seen, n)
		step <- struct{}{}
		return err
	}}
	go func() { done <- r.read(t.Context(), 0, true) }()
	for i := range 500 {
		book.write([]byte(strconv.Itoa(i)))
		<-step
	}
	book.close()
	require.NoError(t, <-done)
	require.Len(t, seen, 500)
	require.True(t, slices.IsSorted(seen))
	st, err := os.Stat(book.path)
	require.NoError(t, err)
	require.LessOrEqual(t, st.Size(), book.limit)
}

// TestRetention deploys more versions than are kept, with wheels of their own.
func TestRetention(t *testing.T) {
	t.Parallel()
	const keep = 3
	h := newHost(t, func(o *Options) { o.Keep = keep })
	for i := range keep + 3 {
		w := wheel(t, "dep", member{name: "dep.py", content: fmt.Sprintf("N = %d\n", i)})
		h.deploy(h.spec(webApp(fmt.Sprint("word", i)), func(s *codeserverpb.VersionSpec) {
			s.DepsRoot = depsTree(t, h.cas, map[string][]byte{"dep-1.0-py3-none-any.whl": w}).Proto()
		}))
	}
	count := func(pattern string) int {
		found, _ := filepath.Glob(filepath.Join(h.opts.State, pattern))
		return len(found)
	}
	eventually(t, func() bool { return count("store/trees/*") == keep }, "trees are deleted")
	eventually(t, func() bool { return count("python/envs/*") == keep && count("python/wheels/*") == keep }, "environments are deleted")
	eventually(t, func() bool { return count("logs/*.log") == keep }, "logs are deleted")
	// Of each version three Directories of the sources, two of the deps, two PEX-INFOs, word.py and the wheel are its own;
	// all share a PEX-INFO of the sources, __init__.py, __main__.py and the app's __main__.py, of which one is empty.
	require.LessOrEqual(t, count("store/blobs/cas/*/*"), keep*9+4)
	require.Len(t, h.s.messages("web")[0].GetVersions(), keep)
	h.cas = nil
	h.opts.Open = nil
	h.restart()
	back, err := h.rollback("")
	require.NoError(t, err)
	require.Equal(t, "word"+strconv.Itoa(keep+1), h.get(back, "/"))
}

// TestCorrupt damages what the host keeps: it is set aside, and comes from the cache again.
func TestCorrupt(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := wheel(t, "dep", member{name: "dep.py", content: "N = 1\n"})
	app := webApp("one")
	spec := h.spec(app, func(s *codeserverpb.VersionSpec) {
		s.DepsRoot = depsTree(t, h.cas, map[string][]byte{"dep-1.0-py3-none-any.whl": w}).Proto()
	})
	h.deploy(spec)
	h.deploy(h.spec(webApp("two")))
	h.close()
	blobs, err := filepath.Glob(filepath.Join(h.opts.State, "store/blobs/cas/*/*"))
	require.NoError(t, err)
	require.NotEmpty(t, blobs)
	for i, path := range blobs {
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(path, 0o644))
		bad := []byte(strings.Repeat("z", int(st.Size())))
		if i%2 == 0 {
			bad = append(bad, "longer"...)
		}
		require.NoError(t, os.WriteFile(path, bad, 0o644))
	}
	// What was made of them is gone too, and what a killed process left is there.
	for _, dir := range []string{"store/trees", "python/wheels", "python/envs"} {
		require.NoError(t, os.RemoveAll(filepath.Join(h.opts.State, dir)))
	}
	for _, left := range []string{"store/tmp/tree1/x", "python/tmp/env-1/x", ".state.json.123", "logs/.cut1"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(h.opts.State, left)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(h.opts.State, left), nil, 0o644))
	}
	h.open()
	for _, left := range []string{"store/tmp/tree1", "python/tmp/env-1", ".state.json.123", "logs/.cut1"} {
		_, err := os.Lstat(filepath.Join(h.opts.State, left))
		require.ErrorIs(t, err, os.ErrNotExist, left)
	}
	address := h.s.messages("web")[0].GetAddress()
	await(t, address, "two")
	back := h.deploy(spec)
	require.Equal(t, "one", h.get(back, "/"))
}
