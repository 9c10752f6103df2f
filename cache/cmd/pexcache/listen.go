package main

import (
	"net"
	"os"

	"golang.org/x/net/netutil"

	"github.com/pexpress/pexpress/cache/local"
)

// listen opens an address for at most so many connections. A unix socket is this user's alone.
func listen(address string, connections int) (net.Listener, error) {
	path, unix := local.Socket(address)
	var l net.Listener
	var err error
	if unix {
		l, err = listenUnix(path)
	} else {
		l, err = net.Listen("tcp", address)
	}
	if err != nil {
		return nil, unavailableError{err}
	}
	return netutil.LimitListener(l, connections), nil
}

func listenUnix(path string) (net.Listener, error) {
	l, err := local.Listen(path)
	if err != nil {
		return nil, err
	}
	return &unixListener{l, path}, nil
}

// unixListener removes its socket when it is closed.
type unixListener struct {
	net.Listener
	path string
}

// Close implements net.Listener.
func (l *unixListener) Close() error {
	err := l.Listener.Close()
	if err == nil {
		err = os.Remove(l.path)
	}
	return err
}
