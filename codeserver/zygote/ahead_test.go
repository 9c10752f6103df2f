package zygote_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/worker"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

// TestAhead sees that a version is the process that was forked before anybody asked for it, that the next one is forked
// then, that one which has been killed meanwhile is replaced, and that none outlives the zygote.
func TestAhead(t *testing.T) {
	dir := t.TempDir()
	script, err := zygote.Script(dir)
	require.NoError(t, err)
	program := dir + "/app.py"
	require.NoError(t, os.WriteFile(program, []byte("import os, time\nprint(os.getppid(), flush=True)\ntime.sleep(600)\n"), 0o644))
	out := &log{}
	z, err := zygote.Start(t.Context(), zygote.Config{Python: pythons(t)[0], Script: script, Env: []string{"PATH=/usr/bin:/bin"}, Log: out})
	require.NoError(t, err)
	t.Cleanup(z.Close)
	fork := func() (*worker.Worker, int) {
		said := make(chan string, 10)
		w, err := worker.Start(worker.Spec{
			Args: []string{program}, Dir: dir, Env: []string{"PATH=/usr/bin:/bin"}, Grace: time.Second, Fork: z.Fork,
			Log: func(line []byte) { said <- string(line) },
		})
		require.NoError(t, err, "%s", out)
		t.Cleanup(func() { w.Stop(context.Background()) })
		shim, err := strconv.Atoi(<-said)
		require.NoError(t, err)
		return w, shim
	}
	waiting := func(but ...int) int {
		var pid int
		require.Eventually(t, func() bool {
			pid = 0
			for _, child := range children(t, z.PID()) {
				if !slices.Contains(but, child) && len(children(t, child)) == 1 {
					pid = child
				}
			}
			return pid != 0
		}, 10*time.Second, 10*time.Millisecond, "nothing was forked ahead")
		return pid
	}
	gone := func(pids ...int) {
		for _, pid := range pids {
			require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil || state(pid) == "Z" }, 10*time.Second, 10*time.Millisecond)
		}
	}
	ahead := waiting()
	_, first := fork()
	require.Equal(t, ahead, first)

	known := []int{first}
	for killed := range 2 {
		ahead = waiting(known...)
		pair := []int{ahead, children(t, ahead)[0]}
		require.NoError(t, syscall.Kill(pair[killed], syscall.SIGKILL))
		gone(pair...)
		_, next := fork()
		require.NotEqual(t, ahead, next)
		known = append(known, next)
	}

	ahead = waiting(known...)
	version := children(t, ahead)[0]
	z.Close()
	gone(ahead, version)
	require.NoError(t, syscall.Kill(first, 0), "versions go on without the zygote")
	require.Empty(t, out.String())
}

// children lists the processes that a process's main thread has started.
func children(t *testing.T, pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var found []int
	for _, word := range strings.Fields(string(b)) {
		n, err := strconv.Atoi(word)
		require.NoError(t, err)
		found = append(found, n)
	}
	return found
}

// state returns what the kernel says that a process does: R, S, Z.
func state(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:1]
}
