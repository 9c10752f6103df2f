package worker

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStoppedShim stops the shim, as a version can: what it watches over is ended all the same.
func TestStoppedShim(t *testing.T) {
	w, _ := shell(t, `kill -STOP $PPID; while :; do sleep 0.1; done`, 100*time.Millisecond)
	pid := w.PID()
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) == nil }, 10*time.Second, time.Millisecond)
	time.Sleep(100 * time.Millisecond)
	w.Stop(context.Background())
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 10*time.Second, 10*time.Millisecond, "%d still runs", pid)
}
