package limits

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// TestBalance has one of two groups compute: its weight is low until it stops, and so is another's until it is gone. Somebody
// ticks meanwhile.
func TestBalance(t *testing.T) {
	h := Open(t.TempDir(), slog.New(slog.DiscardHandler))
	v, ok := h.layout.(*v1)
	if !ok || v.base[cpu] == "" || v.base[cpuacct] == "" {
		t.Skip("needs cgroups of version 1 with cpu and cpuacct")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		h.Balance(ctx)
		close(done)
	}()
	start := func(name, program string) (*Group, *exec.Cmd) {
		g, err := h.Group(name, Limits{})
		require.NoError(t, err)
		cmd := exec.Command("sh", "-c", "read go; "+program)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { require.NoError(t, g.End()); _ = cmd.Wait() })
		for _, dir := range g.Dirs() {
			require.NoError(t, os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(cmd.Process.Pid)), 0))
		}
		_, err = in.Write([]byte("\n"))
		require.NoError(t, err)
		return g, cmd
	}
	weight := func(g *Group) string {
		b, err := os.ReadFile(v.path(cpu, g.name) + "/cpu.idle")
		if err != nil { // an older kernel
			b, err = os.ReadFile(v.path(cpu, g.name) + "/cpu.shares")
		}
		require.NoError(t, err)
		return map[string]string{"1": "low", "2": "low", "0": "usual", "1024": "usual"}[strings.TrimSpace(string(b))]
	}
	becomes := func(g *Group, want string) {
		require.Eventually(t, func() bool { return weight(g) == want }, time.Minute, 10*time.Millisecond)
	}
	idle, _ := start("idle", "sleep 600")
	greedy, cmd := start("greedy", "trap 'exec sleep 600' TERM; while :; do :; done")
	ticks := func(want bool) {
		require.Eventually(t, func() bool { return slices.ContainsFunc(proc.PIDs(), ticksForUs) == (want && kernelTick() > tickEvery) }, time.Minute, 10*time.Millisecond)
	}
	becomes(greedy, "low")
	require.Equal(t, "usual", weight(idle))
	ticks(true)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	becomes(greedy, "usual")
	ticks(false)
	gone, _ := start("gone", "while :; do :; done")
	becomes(gone, "low")
	ticks(true)
	require.NoError(t, gone.End())
	ticks(false)
	last, _ := start("last", "while :; do :; done")
	becomes(last, "low")
	cancel()
	<-done
	require.Equal(t, "usual", weight(last), "the version goes on")
	ticks(false)
}

func ticksForUs(pid int) bool {
	s, err := proc.ReadStat(pid)
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && s.Parent == os.Getpid() && strings.Contains(string(b), tickArg)
}
