package codeserver

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestRestartSoak restarts a codeserver of many locations without its cache, after a crash that they outlived and after one
// in which they ended, and prints how long it takes until all answer, beside the time that the same programs take when they
// are started by hand, all at once.
func TestRestartSoak(t *testing.T) {
	n := 3
	if os.Getenv("PEXPRESS_SOAK") != "" {
		n = 20
	}
	w := newWorld(t, Users{})
	var addresses []string
	app := webApp("word")
	app["app/word.py"] += "import asyncio, concurrent.futures, decimal, email, sqlite3, unittest, xml.dom.minidom, dep\n"
	for i := range n {
		spec := makeSpec(t, w.cas, app, func(s *codeserverpb.VersionSpec) {
			s.DepsRoot = depsTree(t, w.cas, map[string][]byte{"dep-1.0-py3-none-any.whl": wheel(t, "dep", member{name: "dep.py", content: "N = 1\n"})}).Proto()
		})
		d, err := deployWith(t.Context(), w.Client, &codeserverpb.DeployRequest{Location: fmt.Sprint("l", i), Spec: spec, ReadyTimeout: durationpb.New(time.Minute)})
		require.NoError(t, err)
		addresses = append(addresses, d.GetLocation().GetAddress())
	}
	r, err := w.List(t.Context(), &codeserverpb.ListRequest{})
	require.NoError(t, err)
	byHand := startByHand(t, r.GetLocations())
	w.cacheProc.end(syscall.SIGKILL)
	restart := func(sig syscall.Signal) time.Duration {
		w.endServer(sig)
		begin := time.Now()
		w.serve(0)
		awaitAll(t, addresses)
		return time.Since(begin)
	}
	adopted := restart(syscall.SIGKILL)
	now, err := w.List(t.Context(), &codeserverpb.ListRequest{})
	require.NoError(t, err)
	for i, l := range now.GetLocations() {
		require.Equal(t, current(r.GetLocations()[i]).GetPid(), current(l).GetPid())
	}
	cold := restart(syscall.SIGINT)
	t.Logf("%d locations, no cache: all answer %s after a start that takes them over, and %s after one that starts them; started by hand, all at once, they take %s",
		n, adopted.Round(time.Millisecond), cold.Round(time.Millisecond), byHand.Round(time.Millisecond))
	w.startCache() // what ends the test ends it
}

func awaitAll(t *testing.T, addresses []string) {
	var wg sync.WaitGroup
	for _, address := range addresses {
		wg.Go(func() {
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
				if body, err := get(address, "/"); err == nil && body == "word" {
					return
				}
			}
			t.Errorf("%s does not answer", address)
		})
	}
	wg.Wait()
	require.False(t, t.Failed())
}

// startByHand starts the programs of versions once more, and returns how long it takes until all answer.
func startByHand(t *testing.T, all []*codeserverpb.Location) time.Duration {
	var addresses []string
	var cmds []*exec.Cmd
	var p ports
	for _, l := range all {
		proc := filepath.Join("/proc", strconv.FormatInt(current(l).GetPid(), 10))
		vars, err := os.ReadFile(proc + "/environ")
		require.NoError(t, err)
		dir, err := os.Readlink(proc + "/cwd")
		require.NoError(t, err)
		port, err := p.give()
		require.NoError(t, err)
		cmd := exec.Command(filepath.Join(environ(vars, "VIRTUAL_ENV"), "bin", "python"), "-m", "app")
		cmd.Dir = dir
		cmd.Env = []string{"PORT=" + strconv.Itoa(port), "PATH=/usr/bin:/bin", "PYTHONPATH=" + dir}
		cmds, addresses = append(cmds, cmd), append(addresses, fmt.Sprintf("127.0.0.1:%d", port))
	}
	begin := time.Now()
	for _, cmd := range cmds {
		require.NoError(t, cmd.Start())
		defer cmd.Wait() //nolint:errcheck // it is killed
		defer cmd.Process.Kill()
	}
	awaitAll(t, addresses)
	return time.Since(begin)
}

func environ(vars []byte, name string) string {
	for v := range bytes.SplitSeq(vars, []byte{0}) {
		if value, ok := strings.CutPrefix(string(v), name+"="); ok {
			return value
		}
	}
	return ""
}
