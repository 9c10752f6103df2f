package plugin

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOffer starts a builder as hosts of other versions would.
func TestOffer(t *testing.T) {
	serve := func(versions string) (string, error) {
		cmd := exec.Command(self(t), builderArg, "good", marker())
		cmd.Env = append(os.Environ(), handshake.MagicCookieKey+"="+handshake.MagicCookieValue, offered+"="+versions,
			"PLUGIN_UNIX_SOCKET_DIR="+t.TempDir())
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		line := make([]byte, 4)
		_, err = out.Read(line)
		if err == nil {
			require.NoError(t, cmd.Process.Kill())
		}
		_ = cmd.Wait()
		return string(line) + stderr.String(), err
	}
	said, err := serve("1,2,3")
	require.NoError(t, err)
	require.Equal(t, "1|1|", said, "the highest that both speak")
	said, err = serve("2,3")
	require.Error(t, err)
	require.Contains(t, said, "pexpress speaks 2,3, this builder 1")
}
