package examples

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestEndingDuringDeploy ends a codeserver in each way while a deploy waits for its version: who deploys is told why, and the location
// serves what it served.
func TestEndingDuringDeploy(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"interrupt": syscall.SIGINT, "terminate": syscall.SIGTERM, "upgrade": syscall.SIGUSR2} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, webProject("one"))
			h.serve = []string{"--adopt-within", "1m", "--stop-grace", "2s"}
			h.start()
			address, _ := h.deploy()
			h.write("web/word.py", "import time\ntime.sleep(600)\n")
			done := make(chan result)
			go func() {
				r, _ := h.try("deploy")
				done <- r
			}()
			require.Eventually(t, func() bool { return strings.Contains(h.run("status").stdout, "starting") }, 30*time.Second, 20*time.Millisecond)
			require.NoError(t, h.server.Process.Signal(sig))
			r := <-done
			require.Equal(t, 6, r.code, r.stderr)
			require.Contains(t, r.stderr, "the codeserver is ending, do it again when it is up")
			if sig != syscall.SIGUSR2 {
				require.NoError(t, h.server.Wait())
				h.server = nil
				h.start()
			}
			h.await(address, "one")
			require.NotContains(t, h.run("status").stdout, "starting")
			h.end(syscall.SIGINT)
			require.Empty(t, h.processes())
		})
	}
}
