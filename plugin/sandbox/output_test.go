package sandbox

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFirstLine(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"line":     {"1|1|unix|/s|grpc\nand more\n" + strings.Repeat("y", 1<<20), "1|1|unix|/s|grpc\n"},
		"no line":  {"1|1", "1|1"},
		"too long": {strings.Repeat("x", 1<<20), strings.Repeat("x", maxHandshake-1) + "\n"},
		"nothing":  {"", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			require.NoError(t, err)
			go func() {
				_, _ = io.WriteString(w, tt.in)
				w.Close()
			}()
			got, err := io.ReadAll(&firstLine{f: r, left: maxHandshake})
			require.NoError(t, err)
			require.Equal(t, tt.want, string(got))
			require.NoError(t, r.Close())
		})
	}
}

func TestIsolateNeedsInitMain(t *testing.T) {
	// This test binary's main does not call InitMain: started again as a sandbox it would run all tests in there.
	_, err := Command(Options{Command: []string{"/bin/sh"}, Isolate: true})
	require.ErrorContains(t, err, "InitMain")
}

func TestInside(t *testing.T) {
	for path, want := range map[string]bool{
		"/a/b": true, "/a/b/c": true, "/a": false, "/a/bc": false, "/a/b/../c": false, "/a/b/..c": true, "b": false,
	} {
		require.Equal(t, want, inside(path, "/a/b"), path)
	}
}
