package limits

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHome sees that what Hurry moves this process to is where it is.
func TestHome(t *testing.T) {
	h := Open(t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if h.layout == nil {
		t.Skip("this host has no cgroups to make groups in: " + h.why)
	}
	before, err := own()
	require.NoError(t, err)
	dir := h.layout.home()
	require.NotEmpty(t, dir)
	require.NoError(t, write(dir+"/cgroup.procs", "0"))
	after, err := own()
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// at is a layout that knows only where this process is.
type at struct {
	layout
	dir string
}

func (a at) home() string { return a.dir }

// TestHurry has a process moved again and again for as long as is asked for, by one who does so, and once for no time.
func TestHurry(t *testing.T) {
	dir := t.TempDir()
	procs := filepath.Join(dir, "cgroup.procs")
	require.NoError(t, os.WriteFile(procs, nil, 0o600))
	h := &Host{layout: at{dir: dir}}
	moved := func() bool { // since it was asked last
		b, err := os.ReadFile(procs)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(procs, 0))
		return string(b) == "0"
	}
	over := func() bool {
		h.hurry.mu.Lock()
		defer h.hurry.mu.Unlock()
		return !h.hurry.on
	}
	eventually := func(f func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
			require.True(t, time.Now().Before(deadline))
		}
	}

	h.Hurry(0)
	eventually(over)
	require.True(t, moved())
	time.Sleep(5 * hurryEvery)
	require.False(t, moved())

	h.Hurry(time.Hour)
	h.Hurry(0)
	for range 3 {
		eventually(moved)
	}
	h.hurry.mu.Lock()
	h.hurry.until = time.Now()
	h.hurry.mu.Unlock()
	eventually(over)
	moved()
	time.Sleep(5 * hurryEvery)
	require.False(t, moved())
}
