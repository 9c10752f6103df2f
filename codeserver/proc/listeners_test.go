package proc

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// ways are the two that the kernel has.
var ways = map[string]func(port int) ([]Listener, error){"asked": asked, "listed": listed}

// listenerOf returns what is to be found of a listener.
func listenerOf(t *testing.T, l net.Listener) Listener {
	file, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	defer file.Close()
	target, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(int(file.Fd()))))
	require.NoError(t, err)
	inode, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]"), 10, 32)
	require.NoError(t, err)
	address := l.Addr().(*net.TCPAddr).AddrPort()
	return Listener{Inode: uint32(inode), User: uint32(os.Getuid()), Address: netip.AddrPortFrom(address.Addr().Unmap(), address.Port())}
}

func inodes(found []Listener) (all []uint32) {
	for _, l := range found {
		all = append(all, l.Inode)
	}
	return all
}

// TestListeners finds who listens on a port, in either family, and not who has stopped, of whom there is a connection still. Other
// processes may listen on the port at other addresses.
func TestListeners(t *testing.T) {
	for _, c := range []struct {
		network, address string
		v6Only           bool
	}{
		{"tcp", "127.0.0.1:0", false},
		{"tcp", "0.0.0.0:0", false},
		{"tcp", "[::1]:0", true},
		{"tcp", "[::]:0", false},
		{"tcp6", "[::]:0", true},
	} {
		address := c.address
		l, err := net.Listen(c.network, address)
		if err != nil && strings.HasPrefix(address, "[::") {
			t.Log("no IPv6 here: ", err)
			continue
		}
		require.NoError(t, err, address)
		port, want := l.Addr().(*net.TCPAddr).Port, listenerOf(t, l)
		client, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err, address)
		server, err := l.Accept()
		require.NoError(t, err, address)
		for name, way := range ways {
			found, err := way(port)
			require.NoError(t, err, "%s %s", name, address)
			want.V6Only = c.v6Only && name == "asked" // the tables do not say it
			require.Contains(t, found, want, "%s %s", name, address)
		}
		require.NoError(t, l.Close())
		for name, way := range ways {
			found, err := way(port)
			require.NoError(t, err, "%s %s", name, address)
			require.NotContains(t, inodes(found), want.Inode, "%s %s", name, address)
		}
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
	want := []Listener{listenerOf(t, first)}
	for i := range 400 {
		l, err := net.Listen("tcp", "127.1."+strconv.Itoa(i/200)+"."+strconv.Itoa(i%200+1)+":"+strconv.Itoa(port))
		require.NoError(t, err)
		defer l.Close()
		want = append(want, listenerOf(t, l))
	}
	for name, way := range ways {
		found, err := way(port)
		require.NoError(t, err, name)
		require.Subset(t, found, want, name)
	}
}

// TestProblem reads how an answer ends: also a list that could not be made has an end.
func TestProblem(t *testing.T) {
	require.NoError(t, problem(nil))
	require.NoError(t, problem(make([]byte, 4)))
	status := -int32(unix.ENOENT)
	require.ErrorIs(t, problem(binary.NativeEndian.AppendUint32(nil, uint32(status))), unix.ENOENT)
}
