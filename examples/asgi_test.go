package examples

import (
	"bufio"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestASGI deploys the ASGI example, holds a slow response over a switch and sees it end on the version it began on.
func TestASGI(t *testing.T) {
	clients(t) // the wheels come from the index
	h := newHost(t, nil)
	require.NoError(t, os.CopyFS(h.project, os.DirFS("asgi-hello")))
	h.start()
	address, _ := h.deploy()
	require.Equal(t, "Hello, world!", h.get(address, "/"))
	require.Contains(t, h.get(address, "/about"), `"version":"0.1.0"`)

	resp, err := http.Get("http://" + address + "/count?to=25")
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	require.True(t, lines.Scan())
	require.Equal(t, "Hello 0", lines.Text())
	greeting := filepath.Join(h.project, "src/hello/greeting.txt")
	require.NoError(t, os.WriteFile(greeting, []byte("Servus\n"), 0o644))
	h.deploy()
	require.Equal(t, "Servus, world!", h.get(address, "/"), "what begins after the switch sees the new version")
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	require.NoError(t, lines.Err())
	require.Equal(t, "Hello 24", last, "what began before ends on the old one")
}
