package limits

import (
	"io"
	"log/slog"
	"testing"

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
