package proxy

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// connections is how many connections a Switch has with its clients at once, and a backend with its version: an eighth
// each of what this process may open, so that those of one location leave others, and the control API, room.
func connections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 128
	}
	return max(int(min(limit.Cur, 1<<20)/8), 16)
}

// limited is a listener with so many connections at once: who comes then waits in the socket. It is netutil's
// LimitListener but for the connections, which keep CloseWrite: half-closed upgrades need it.
type limited struct {
	net.Listener
	places chan struct{}
	end    sync.Once
	ended  chan struct{}
}

func limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, places: make(chan struct{}, n), ended: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.ended:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	tcp, ok := c.(*net.TCPConn)
	if err != nil || !ok {
		<-l.places
		return c, err
	}
	return &placed{TCPConn: tcp, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.end.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

// placed is a connection that has a place until it is closed.
type placed struct {
	*net.TCPConn
	leave func()
}

func (c *placed) Close() error {
	defer c.leave()
	return c.TCPConn.Close()
}
