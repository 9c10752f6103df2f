package worker

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStoppedShim stops the shim, as a version can: what it watches over is ended all the same.
func TestStoppedShim(t *testing.T) {
	up := filepath.Join(t.TempDir(), "up")
	w, b := shell(t, `until test -e `+up+`; do sleep 0.01; done; kill -STOP $PPID; echo stopped; while :; do sleep 0.1; done`,
		100*time.Millisecond)
	require.NoError(t, os.WriteFile(up, nil, 0o600))
	require.Eventually(t, func() bool { return len(b.all()) > 0 }, 10*time.Second, time.Millisecond)
	pid := w.PID()
	w.Stop(context.Background())
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 10*time.Second, 10*time.Millisecond, "%d still runs", pid)
}

// TestStoppedAtOnce stops the shim again and again from its start on, often before it has said what it started: Start
// returns, and what was started is ended.
func TestStoppedAtOnce(t *testing.T) {
	defer func(d time.Duration) { startTimeout = d }(startTimeout)
	startTimeout = time.Second
	for range 6 {
		b := &book{}
		w, err := Start(Spec{
			Program: "/bin/sh", Args: []string{"-c", `kill -STOP $PPID; echo $$; exec sleep 600`}, Dir: t.TempDir(),
			Env: []string{"PATH=/usr/bin:/bin"}, Log: b.write, Grace: time.Second,
		})
		if err == nil {
			require.Eventually(t, func() bool { return len(b.all()) > 0 }, 10*time.Second, time.Millisecond)
			now, cancel := context.WithCancel(context.Background())
			cancel()
			w.Stop(now)
		}
		for _, pid := range b.all() {
			command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			require.NotContains(t, string(command), "sleep")
		}
	}
}
