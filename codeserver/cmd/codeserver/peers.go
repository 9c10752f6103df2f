package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// outside is a listener of this host's that versions cannot talk to: those that have users of their own are told by them.
// Where nobody is asked who they are, the code of one location could read the logs of the others, and roll them back.
type outside struct {
	net.Listener
	versions func(user int) bool
	warn     func(error) // is told once of each user
}

// Accept implements net.Listener. Who is there is looked at when something comes: nobody else waits for that.
func (l *outside) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &outsider{Conn: c, check: sync.OnceValue(func() error {
		user, err := userOf(c)
		if err == nil && l.versions(user) {
			err = fmt.Errorf("user %d is a version's", user)
		}
		if err != nil {
			l.warn(fmt.Errorf("%s: %w", c.LocalAddr(), err))
		}
		return err
	})}, nil
}

type outsider struct {
	net.Conn
	check func() error
}

// Read implements net.Conn.
func (c *outsider) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		if cerr := c.check(); cerr != nil {
			return 0, errors.Join(cerr, c.Close())
		}
	}
	return n, err
}

// errNobody says that whoever has made a connection has closed it, or is not on this host.
var errNobody = errors.New("nobody on this host has the other end open")

// userOf returns whose the other end of a connection is, which is on this host; see proc_net_tcp.txt of the kernel's
// documentation. An end that was closed has no inode, and says that it is root's.
func userOf(c net.Conn) (int, error) {
	theirs, ours := endOf(c.RemoteAddr()), endOf(c.LocalAddr())
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > 9 && proc.Endpoint(f[1]) == theirs && proc.Endpoint(f[2]) == ours && f[9] != "0" {
				return strconv.Atoi(f[7])
			}
		}
	}
	return 0, errNobody
}

func endOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap().WithZone(""), tcp.AddrPort().Port())
}
