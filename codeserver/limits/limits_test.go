package limits

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func openHost(t *testing.T, state string) *Host {
	h := Open(state, slog.New(slog.DiscardHandler))
	if h.layout == nil {
		t.Skip("needs cgroups to make groups in: " + h.why)
	}
	return h
}

// inGroup starts a process that sleeps in a group.
func inGroup(t *testing.T, g *Group) *exec.Cmd {
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	for _, dir := range g.Dirs() {
		require.NoError(t, write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(cmd.Process.Pid)))
	}
	return cmd
}

// killed waits until a process has ended, and requires that it was killed.
func killed(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer late.Stop()
	require.EqualError(t, cmd.Wait(), "signal: killed")
}

func nobodys(int) bool { return false }

// TestSweep finds what an earlier codeserver on the same state directory has left, adopts one group of it and ends the
// other. One on another directory finds nothing.
func TestSweep(t *testing.T) {
	state := t.TempDir()
	h := openHost(t, state)
	left, err := h.Group("left", Limits{Pids: 20})
	require.NoError(t, err)
	kept, err := h.Group("kept", Limits{Pids: 20})
	require.NoError(t, err)
	leftProcess, keptProcess := inGroup(t, left), inGroup(t, kept)

	require.NoError(t, openHost(t, t.TempDir()).Sweep(nobodys))
	next := openHost(t, state)
	require.Nil(t, next.Adopt(os.Getpid(), Limits{}), "this process is in none")
	adopted := next.Adopt(keptProcess.Process.Pid, Limits{Pids: 20})
	require.NotNil(t, adopted)
	require.Equal(t, kept.Dirs(), adopted.Dirs())
	require.NoError(t, next.Sweep(func(pid int) bool { return pid == keptProcess.Process.Pid }))
	killed(t, leftProcess)
	for _, dir := range left.Dirs() {
		require.NoDirExists(t, dir)
	}
	u := adopted.Usage(nil)
	require.EqualValues(t, 1, u.Processes)
	require.Positive(t, u.Memory)
	require.NoError(t, adopted.End())
	killed(t, keptProcess)
	for _, dir := range kept.Dirs() {
		require.NoDirExists(t, dir)
	}
	require.NoError(t, adopted.End(), "once more")
}

// TestNestedGroups has a version make groups below its own, as one that runs as root can.
func TestNestedGroups(t *testing.T) {
	h := openHost(t, t.TempDir())
	g, err := h.Group("nested", Limits{})
	require.NoError(t, err)
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	for _, dir := range g.Dirs() {
		below := filepath.Join(dir, "a", "b")
		require.NoError(t, os.MkdirAll(below, 0o755))
		require.NoError(t, write(filepath.Join(below, "cgroup.procs"), strconv.Itoa(cmd.Process.Pid)))
	}
	require.NoError(t, g.End())
	killed(t, cmd)
	for _, dir := range g.Dirs() {
		require.NoDirExists(t, dir)
	}
}

// TestExcess: a limit that is more than there is here is accepted, and said to limit nothing.
func TestExcess(t *testing.T) {
	n := int64(max(online(), runtime.NumCPU()))
	require.Empty(t, Limits{}.Excess())
	require.Empty(t, Limits{CPU: n * 1000}.Excess())
	require.Regexp(t, `^more than the (one processor|\d+ processors) of this host: it limits nothing$`, Limits{CPU: n*1000 + 1}.Excess()["cpu"])
	require.Empty(t, Limits{Memory: hostMemory()}.Excess())
	require.Equal(t, map[string]string{"memory": "more than the " + Size(hostMemory()) + " of this host, which are used up before"},
		Limits{Memory: hostMemory() + 1}.Excess())
	info, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	total := 0
	_, err = fmt.Sscanf(string(info), "MemTotal: %d kB", &total)
	require.NoError(t, err)
	require.EqualValues(t, total<<10, hostMemory())
	h := &Host{layout: &fakeLayout{}, prefix: "v-"}
	g := &Group{host: h, name: "v-web", limits: Limits{CPU: 1 << 20 * 1000}}
	require.Contains(t, g.Isolation(), "cpu: 1048576 (fake; "+g.limits.Excess()["cpu"]+")")
	g.limits.Memory = 1 << 50
	require.Contains(t, g.Isolation(), "memory: 1024 TiB (fake; "+g.limits.Excess()["memory"]+")")
	g.limits.Memory = 0
	g.limits.CPU = 500
	require.Contains(t, g.Isolation(), "cpu: 0.5 (fake)")
	g.name, g.limits.CPU = "", 1<<20*1000
	h.why = "permission denied"
	require.Equal(t, []string{"cpu: not limited to 1048576 (permission denied)"}, g.Isolation())
}

// TestWithout says what is not in force where there are no cgroups.
func TestWithout(t *testing.T) {
	h := &Host{why: "permission denied"}
	g, err := h.Group("web", Limits{Memory: 1536 << 20, CPU: 500, Pids: 10, OpenFiles: 100})
	require.NoError(t, err)
	require.Equal(t, []string{
		"memory: not limited to 1.5 GiB (permission denied)", "cpu: not limited to 0.5 (permission denied)",
		"pids: not limited to 10 (permission denied)", "open files: 100 (rlimit)",
	}, g.Isolation())
	used := func() Usage { return g.Usage(func() []int { return []int{os.Getpid()} }) }
	u := used()
	require.EqualValues(t, 1, u.Processes)
	require.Positive(t, u.Memory)
	// The kernel counts in ticks of 10 ms: asking is what uses them.
	require.Eventually(t, func() bool { return used().CPU > 0 }, 20*time.Second, time.Microsecond)
	require.NoError(t, g.End())
	require.EqualError(t, g.Explain(os.ErrClosed), os.ErrClosed.Error())
	require.Nil(t, h.Adopt(os.Getpid(), Limits{}))
	require.NoError(t, h.Sweep(nobodys))
}

// TestUsageOfEnded reads what a process uses that has ended meanwhile.
func TestUsageOfEnded(t *testing.T) {
	cmd := exec.Command("true")
	require.NoError(t, cmd.Run())
	require.Zero(t, PSS(cmd.Process.Pid))
	require.Zero(t, cpuTime(cmd.Process.Pid))
}
