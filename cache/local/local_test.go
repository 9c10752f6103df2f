package local_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/local"
)

// TestListen: the socket is this user's alone; one that answers, and what is no socket, is left alone.
func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := local.Listen(path)
	require.NoError(t, err)
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o600, st.Mode())
	_, err = local.Listen(path)
	require.ErrorContains(t, err, "another server answers")
	require.NoError(t, l.Close())
	require.FileExists(t, path)
	l, err = local.Listen(path)
	require.NoError(t, err, "its server is gone")
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, l.Close())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is beside it")

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	_, err = local.Listen(file)
	require.ErrorContains(t, err, "is no socket")
	require.FileExists(t, file)
}

func TestIsHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost:80": true, "127.0.0.1": true, "127.9.9.9:1": true, "[::1]:443": true, "[::1]": true, "::1": true,
		"": false, ":80": false, "0.0.0.0:80": false, "10.0.0.1": false, "localhost.example.com": false, "[::]:1": false, "::2": false,
		"127.0.0.1.example.com": false,
	} {
		require.Equal(t, want, local.IsHost(host), host)
	}
}

func TestSocket(t *testing.T) {
	for address, want := range map[string]string{
		"unix:///tmp/s": "/tmp/s", "unix:/tmp/s": "/tmp/s", "unix:80": "", "unix:tmp/s": "", "/tmp/s": "", "host:80": "",
	} {
		path, ok := local.Socket(address)
		require.Equal(t, want, path, address)
		require.Equal(t, want != "", ok, address)
	}
}
