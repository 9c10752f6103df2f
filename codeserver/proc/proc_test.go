package proc_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// TestStat has a program whose name looks like more fields compute, and a child of it end before.
func TestStat(t *testing.T) {
	shell, err := os.ReadFile("/bin/sh")
	require.NoError(t, err)
	program := filepath.Join(t.TempDir(), "a) Z 1 (b")
	require.NoError(t, os.WriteFile(program, shell, 0o755))
	cmd := exec.Command("nice", "-n", "3", program, "-c", "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done); while :; do :; done")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var s proc.Stat
	require.Eventually(t, func() bool {
		s, err = proc.ReadStat(cmd.Process.Pid)
		return err == nil && s.CPU > 0 && s.Children > 0
	}, time.Minute, 10*time.Millisecond)
	require.Equal(t, cmd.Process.Pid, s.PID)
	require.Equal(t, os.Getpid(), s.Parent)
	require.EqualValues(t, 'R', s.State)
	require.Equal(t, 3, s.Nice)
	require.Zero(t, s.Policy)
	pids := map[int]bool{}
	for _, one := range proc.All() {
		pids[one.PID] = true
	}
	require.True(t, pids[1] && pids[os.Getpid()] && pids[cmd.Process.Pid])
	require.Subset(t, proc.PIDs(), []int{1, os.Getpid(), cmd.Process.Pid})
	require.Len(t, proc.Threads(cmd.Process.Pid), 1)
	require.Greater(t, len(proc.Threads(os.Getpid())), 1)

	status, err := proc.Status(cmd.Process.Pid)
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(os.Getpid()), status["PPid"])
	require.NotEmpty(t, status["Uid"])
}

func TestEnded(t *testing.T) {
	cmd := exec.Command("true")
	require.NoError(t, cmd.Run())
	_, err := proc.ReadStat(cmd.Process.Pid)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = proc.Status(cmd.Process.Pid)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Empty(t, proc.Threads(cmd.Process.Pid))
}
