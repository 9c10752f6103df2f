package codeserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSwitchUnderLoad deploys 20 times under requests on kept connections, with a slow answer across each switch.
func TestSwitchUnderLoad(t *testing.T) {
	h := newHost(t)
	d := h.deploy(h.spec(webApp("word0")))
	address := d.GetLocation().GetAddress()
	ctx, cancel := context.WithCancel(t.Context())
	var clients, slow sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if body, err := get(address, "/"); err != nil || !strings.HasPrefix(body, "word") {
					t.Errorf("during a switch: %q %v", body, err)
				}
			}
		})
	}
	for i := 1; i <= 20; i++ {
		began := make(chan struct{})
		slow.Go(func() {
			resp, err := http.Get("http://" + address + "/slow")
			close(began)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if want := strings.Repeat(fmt.Sprint("word", i-1), 40); err != nil || string(b) != want {
				t.Errorf("a slow answer across a switch: %q %v", b, err)
			}
		})
		<-began
		d = h.deploy(h.spec(webApp(fmt.Sprint("word", i))))
		require.Equal(t, fmt.Sprint("word", i), h.get(d, "/"))
	}
	cancel()
	clients.Wait()
	slow.Wait()
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 1 }, "replaced versions are gone")
}

// TestNoLeaks compares descriptors and goroutines before and after a server's life, and over its deploys.
func TestNoLeaks(t *testing.T) {
	fds := func() int {
		found, _ := os.ReadDir("/proc/self/fd")
		return len(found)
	}
	h := newHost(t)
	h.deploy(h.spec(webApp("a")))
	http.DefaultClient.CloseIdleConnections()
	h.deploy(h.spec(webApp("b")))
	settled := func() bool { return len(processesOf(h.opts.State)) == 1 }
	eventually(t, settled, "one version runs")
	bad := webApp("bad")
	bad["app/word.py"] = "raise SystemExit(1)"
	n := 0
	batch := func() {
		for range 6 {
			n++
			h.deploy(h.spec(webApp(fmt.Sprint(n))))
			_, err := deployWith(t.Context(), h.Client, webRequest(h.spec(bad)))
			require.Error(t, err)
		}
		eventually(t, settled, "one version runs")
	}
	batch()
	time.Sleep(2 * time.Second) // retention, and connections that end by themselves
	before, goroutines := fds(), runtime.NumGoroutine()
	batch()
	// A leak of one a deploy shows as six at least.
	if !assert.Eventually(t, func() bool { return fds() < before+5 && runtime.NumGoroutine() < goroutines+6 },
		20*time.Second, 10*time.Millisecond, "deploys leave nothing open") {
		stacks := make([]byte, 1<<20)
		t.Logf("%d descriptors, then %d; %d goroutines, then %s", before, fds(), goroutines, stacks[:runtime.Stack(stacks, true)])
	}
	h.close()
	eventually(t, func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !strings.Contains(string(stacks), "pexpress/codeserver.(*Server)") && !strings.Contains(string(stacks), "worker.(*Worker)")
	}, "no goroutine outlives the server")
	zombies := 0
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, _ := os.ReadFile(path)
		if strings.Contains(string(b), fmt.Sprintf(") Z %d ", os.Getpid())) {
			zombies++
		}
	}
	require.Zero(t, zombies)
}

// TestBytecode deploys a change of one file: the other files' bytecode is that of the version before, Python takes it,
// and what one version compiles anew leaves the other's alone.
func TestBytecode(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	tree := func() string {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		return filepath.Join(h.opts.State, "store/trees", h.s.locations["web"].current.source.Hash()+"-source")
	}
	pyc := func(dir, module string) os.FileInfo {
		st, err := os.Stat(filepath.Join(dir, "app/__pycache__", module+".cpython-311.pyc"))
		require.NoError(t, err)
		return st
	}
	h.deploy(h.spec(webApp("one")))
	first := tree()
	before := pyc(first, "__init__")
	d := h.deploy(h.spec(webApp("two")))
	second := tree()
	require.NotEqual(t, first, second)
	require.Equal(t, "two", h.get(d, "/"))
	require.True(t, os.SameFile(before, pyc(second, "__init__")), "used again, and not compiled anew by Python")
	require.False(t, os.SameFile(pyc(first, "word"), pyc(second, "word")))
	// Python replaces bytecode by a new file, so that a version cannot change what another reads.
	cmd := pythonIn(t, second, "-c", "import py_compile; py_compile.compile('app/__init__.py', doraise=True)")
	require.Empty(t, cmd)
	require.False(t, os.SameFile(before, pyc(second, "__init__")))
	require.True(t, os.SameFile(before, pyc(first, "__init__")))
}

// TestInterpreters asks an interpreter once, and again when another file stands in its place.
func TestInterpreters(t *testing.T) {
	var i interpreters
	one, err := i.find(t.Context(), "3.11")
	require.NoError(t, err)
	two, err := i.find(t.Context(), "3.11")
	require.NoError(t, err)
	require.Same(t, one, two)
	known := i.found["3.11"]
	known.file.modified = time.Now()
	i.found["3.11"] = known
	three, err := i.find(t.Context(), "3.11")
	require.NoError(t, err)
	require.NotSame(t, one, three)
	require.Equal(t, one, three)
}

// TestDiskFull has the host run out of room for blobs, trees and the state: RLIMIT_FSIZE of a server of its own stands
// for a full disk. The deploy fails, the old version goes on, and with room again the deploy goes through.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cas := diskCache(t, dir)
	server := startChild(t, dir)
	defer func() { server.kill() }()
	d, err := deployWith(t.Context(), server, webRequest(makeSpec(t, cas, webApp("one"))))
	require.NoError(t, err)
	big := webApp("two")
	big["big.bin"] = strings.Repeat("0123456789abcdef", 1<<16)
	setFileLimit(t, server.cmd.Process.Pid, 512<<10)
	_, err = deployWith(t.Context(), server, webRequest(makeSpec(t, cas, big)))
	require.ErrorContains(t, err, "no room left")
	body, err := get(d.GetLocation().GetAddress(), "/")
	require.NoError(t, err)
	require.Equal(t, "one", body)
	setFileLimit(t, server.cmd.Process.Pid, 100)
	_, err = deployWith(t.Context(), server, webRequest(makeSpec(t, cas, webApp("three"))))
	require.ErrorContains(t, err, "no room left", "the state cannot be kept either")
	setFileLimit(t, server.cmd.Process.Pid, 1<<40)
	_, err = deployWith(t.Context(), server, webRequest(makeSpec(t, cas, big)))
	require.NoError(t, err)
	await(t, d.GetLocation().GetAddress(), "two")
}
