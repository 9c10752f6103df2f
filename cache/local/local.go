// Package local is about addresses that do not leave this machine: unix sockets that are one user's alone, and hosts that
// are this one.
package local

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Listen listens on a unix socket that only this user can connect to, in place of one that a server has left that is gone.
// Closing the listener leaves the socket where it is.
func Listen(path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Made where nobody else can reach it, then moved: at no moment is it open to others.
	private, err := os.MkdirTemp(filepath.Dir(path), ".socket*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	tmp := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes the socket of a server that is gone, and only that.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is no socket: choose another address", path)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return fmt.Errorf("another server answers on %s", path)
	}
	return os.Remove(path)
}

// Socket returns the path of the unix socket that an address names: unix:///path, or unix:/path as gRPC has it, too. It returns
// false if the address names none; unix:80 is a port of a host of that name.
func Socket(address string) (path string, ok bool) {
	if path, ok = strings.CutPrefix(address, "unix://"); ok {
		return path, true
	}
	path, ok = strings.CutPrefix(address, "unix:")
	if !ok || !strings.HasPrefix(path, "/") {
		return "", false
	}
	return path, true
}

// IsHost reports whether a host, with a port or without, is this machine by a name that no other can have: localhost or
// an address of the loopback interface.
func IsHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}
