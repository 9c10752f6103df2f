package worker

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// book keeps the lines that a process wrote.
type book struct {
	mu    sync.Mutex
	lines []string
}

func (b *book) write(line []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, string(line))
}

func (b *book) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.lines...)
}

// shell starts a script that runs until it is stopped, or ends by itself.
func shell(t *testing.T, script string, grace time.Duration) (*Worker, *book) {
	b := &book{}
	sh, err := exec.LookPath("sh")
	require.NoError(t, err)
	w, err := Start(Spec{
		Program: sh, Args: []string{"-c", script}, Dir: t.TempDir(), Env: []string{"PATH=/usr/bin:/bin", "ONLY=this"},
		Log: b.write, Grace: grace,
	})
	require.NoError(t, err)
	t.Cleanup(func() { w.Stop(context.Background()) })
	return w, b
}

func TestOutputAndStatus(t *testing.T) {
	w, b := shell(t, `echo one; echo two >&2; printf end; exit 7`, time.Second)
	<-w.Done()
	require.EqualError(t, w.Err(), "the process ended with status 7")
	require.ElementsMatch(t, []string{"one", "two", "end"}, b.all())
	w, _ = shell(t, `kill -SEGV $$`, time.Second)
	<-w.Done()
	require.ErrorContains(t, w.Err(), "segmentation fault")
	w, _ = shell(t, `true`, time.Second)
	<-w.Done()
	require.ErrorContains(t, w.Err(), "status 0")
}

// TestCleanSlate has the process see nothing of the server's: no variables, no descriptors, no ignored signals.
func TestCleanSlate(t *testing.T) {
	t.Setenv("SECRET", "no")
	w, b := shell(t, `env; grep SigIgn /proc/self/status; exec ls -x /proc/self/fd`, time.Second)
	<-w.Done()
	all := strings.Join(b.all(), "\n")
	require.NotContains(t, all, "SECRET")
	require.Contains(t, all, "ONLY=this")
	require.Contains(t, all, "\n0  1  2  3", "3 is the directory that ls reads")
	_, rest, ok := strings.Cut(all, "SigIgn:\t")
	require.True(t, ok)
	mask, err := strconv.ParseUint(strings.Fields(rest)[0], 16, 64)
	require.NoError(t, err)
	// Signals from 32 on are the C library's own: whoever started the tests may have left one ignored.
	require.Zero(t, mask&(1<<31-1), "signals 1 to 31 are at their default")
}

func TestNotThere(t *testing.T) {
	b := &book{}
	_, err := Start(Spec{Program: "/no/such/program", Dir: t.TempDir(), Log: b.write, Grace: time.Second})
	require.ErrorContains(t, err, "did not start")
	require.Contains(t, strings.Join(b.all(), ""), "no such file")
	_, err = Start(Spec{Program: "/bin/sh", Dir: "/no/such/directory", Log: b.write, Grace: time.Second})
	require.ErrorContains(t, err, "did not start")
}

// TestStop ends a process in good order, by force after its grace, and at once.
func TestStop(t *testing.T) {
	w, b := shell(t, `trap 'echo ending; exit 0' TERM; echo up; while :; do sleep 0.01; done`, time.Minute)
	require.Eventually(t, func() bool { return len(b.all()) > 0 }, 10*time.Second, time.Millisecond)
	w.Stop(context.Background())
	require.Contains(t, b.all(), "ending")
	require.ErrorContains(t, w.Err(), "status 0")

	w, b = shell(t, `trap '' TERM; echo up; while :; do sleep 0.01; done`, 50*time.Millisecond)
	require.Eventually(t, func() bool { return len(b.all()) > 0 }, 10*time.Second, time.Millisecond)
	w.Stop(context.Background())
	require.ErrorContains(t, w.Err(), "killed")

	w, b = shell(t, `trap '' TERM; echo up; while :; do sleep 0.01; done`, time.Hour)
	require.Eventually(t, func() bool { return len(b.all()) > 0 }, 10*time.Second, time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.Stop(ctx)
	require.ErrorContains(t, w.Err(), "killed")
}

// TestNothingLeft has a process end while what it started runs on, in sessions of their own.
func TestNothingLeft(t *testing.T) {
	w, b := shell(t, `setsid sleep 600 & echo $!; (setsid sh -c 'sleep 600 & echo $!; exit 0' &) ; sleep 0.3; exit 3`, time.Second)
	<-w.Done()
	require.ErrorContains(t, w.Err(), "status 3")
	require.Len(t, b.all(), 2)
	for _, pid := range b.all() {
		_, err := strconv.Atoi(pid)
		require.NoError(t, err)
		command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		require.NotContains(t, string(command), "sleep")
	}
}
