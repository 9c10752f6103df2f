package plugin

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStartErrors holds what a builder can do wrong at its start.
func TestStartErrors(t *testing.T) {
	tests := []struct{ mode, want string }{
		{"start-hang", "not ready after 1s"},
		{"start-deaf", "not ready after 1s"},
		{"start-exit", "I would rather not"},
		// Its exit status is what a sandbox ends with that cannot be set up. It must not make the host try without:
		// Report, which options sets, would fail the test.
		{"start-exit-125", "exit status 125"},
		{"start-old", "install a newer release of the builder"},
		{"start-new", "install a newer pexpress"},
		{"start-core", "the first field of the builder's handshake is 2"},
		{"start-garbage", "is it a pexpress builder?"},
	}
	for _, tt := range tests {
		t.Run(tt.mode, func(t *testing.T) {
			bothWays(t, func(t *testing.T, isolate bool) {
				t.Parallel()
				mark := marker()
				opts := options(t, tt.mode, mark, isolate)
				opts.StartTimeout = time.Second
				if tt.want[0] != 'n' {
					opts.StartTimeout = soon
				}
				_, err := Start(t.Context(), opts)
				require.ErrorIs(t, err, ErrBuilder)
				require.ErrorContains(t, err, tt.want)
				require.NotContains(t, err.Error(), "\x1b")
				require.Less(t, len(err.Error()), 8<<10)
				require.Empty(t, processes(mark))
			})
		})
	}
}

// TestStartElsewhere checks that a builder cannot have its host talk to somebody else's socket.
func TestStartElsewhere(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	_, err = Start(t.Context(), options(t, "start-elsewhere", socket, false))
	require.ErrorIs(t, err, ErrBuilder)
	require.ErrorContains(t, err, "not on a unix socket in $PLUGIN_UNIX_SOCKET_DIR")
	requireGone(t, socket)
}

func TestStartCancelled(t *testing.T) {
	bothWays(t, func(t *testing.T, isolate bool) {
		mark := marker()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		_, err := Start(ctx, options(t, "start-hang", mark, isolate))
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrBuilder)
		require.Empty(t, processes(mark))

		_, err = Start(ctx, options(t, "good", mark, isolate))
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, processes(mark))
	})
}

func TestStartNoProgram(t *testing.T) {
	bothWays(t, func(t *testing.T, isolate bool) {
		for _, command := range [][]string{nil, {"pexpress-plugin-that-is-nowhere"}, {"/nonexistent/builder"}, {"/etc/passwd"}} {
			opts := options(t, "", "", isolate)
			opts.Command = command
			_, err := Start(t.Context(), opts)
			require.ErrorIs(t, err, ErrBuilder)
		}
	})
}

// TestStartForeign starts what is not written in Go and knows of no lifeline.
func TestStartForeign(t *testing.T) {
	bothWays(t, func(t *testing.T, isolate bool) {
		mark := marker()
		opts := options(t, "", "", isolate)
		opts.Command = []string{"sh", "-c", "echo to the last word >&2; exec sleep " + mark}
		opts.StartTimeout = time.Second
		_, err := Start(t.Context(), opts)
		require.ErrorIs(t, err, ErrBuilder)
		require.ErrorContains(t, err, "to the last word")
		require.Empty(t, processes(mark))
	})
}
