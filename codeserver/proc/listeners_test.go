package proc_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// TestListeners finds who listens on a port, in either family, and neither a connection to it nor who has closed it.
func TestListeners(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		require.NoError(t, err, address)
		port := l.Addr().(*net.TCPAddr).Port
		client, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err, address)
		server, err := l.Accept()
		require.NoError(t, err, address)

		inodes, err := proc.Listeners(port)
		require.NoError(t, err, address)
		require.Len(t, inodes, 1, address)
		file, err := l.(*net.TCPListener).File()
		require.NoError(t, err)
		target, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(int(file.Fd()))))
		require.NoError(t, err)
		require.Equal(t, target, "socket:["+strconv.Itoa(int(inodes[0]))+"]", address)

		require.NoError(t, file.Close())
		require.NoError(t, l.Close())
		inodes, err = proc.Listeners(port)
		require.NoError(t, err, address)
		require.Empty(t, inodes, address)
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
	}
}

// TestManyListeners is more than one answer of the kernel holds.
func TestManyListeners(t *testing.T) {
	first, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer first.Close()
	port := first.Addr().(*net.TCPAddr).Port
	for i := range 400 {
		l, err := net.Listen("tcp", "127.1."+strconv.Itoa(i/200)+"."+strconv.Itoa(i%200+1)+":"+strconv.Itoa(port))
		require.NoError(t, err)
		defer l.Close()
	}
	inodes, err := proc.Listeners(port)
	require.NoError(t, err)
	require.Len(t, inodes, 401)
}
