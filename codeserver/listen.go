package codeserver

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/pexpress/pexpress/cache/local"
)

// listenAgain is the pause between two tries to get an address back that something else has taken.
const listenAgain = time.Second

// bind opens an address for a location, on which answer has it answer; "" is the one it has, or for a new location a
// free port of the loopback interface. It returns nil when the location is there already.
func (s *Server) bind(l *location, address string) (net.Listener, error) {
	s.mu.Lock()
	listens, now := l.listener != nil, l.address
	s.mu.Unlock()
	if address == "" {
		address = now
	}
	if address == "" {
		address = "127.0.0.1:0"
	}
	if err := s.checkAddress(address); err != nil {
		return nil, err
	}
	if listens && sameAddress(address, now) {
		return nil, nil
	}
	listener, _, err := s.opts.Sockets.Take(socketName(l), "tcp", address)
	if listener == nil && err == nil {
		listener, err = net.Listen("tcp", address)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: location %s cannot listen on %s: %w; choose another address with --listen", errRefused, l.name, address, err)
	}
	return listener, nil
}

// answer has the location answer on a listener, and no longer on the one before. Server.mu is not held.
func (s *Server) answer(l *location, listener net.Listener) {
	s.mu.Lock()
	old := l.listener
	l.listener, l.address, l.deaf = listener, listener.Addr().String(), ""
	s.mu.Unlock()
	if err := s.opts.Sockets.Keep(socketName(l), listener); err != nil {
		s.opts.Log.Warn("who connects during a restart is refused", "location", l.name, "error", err)
	}
	s.tasks.Go(func() {
		err := l.proxy.Serve(listener)
		if err != nil && !errors.Is(err, net.ErrClosed) {
			s.opts.Log.Error("location no longer listens", "location", l.name, "error", err)
			s.setDeaf(l, listener, err)
		}
	})
	if old != nil {
		_ = old.Close()
	}
}

// setDeaf keeps why a location does not listen, whose listener, or none, is the one that is named.
func (s *Server) setDeaf(l *location, listener net.Listener, why error) {
	s.mu.Lock()
	news := l.listener == listener && l.deaf != why.Error()
	if news {
		l.deaf = why.Error()
	}
	s.mu.Unlock()
	if news {
		s.changed()
	}
}

// socketName is what a location's socket is kept under.
func socketName(l *location) string { return "location-" + l.name }

func (s *Server) dropSocket(l *location) {
	if err := s.opts.Sockets.Drop(socketName(l)); err != nil {
		s.opts.Log.Warn("close a location's socket", "location", l.name, "error", err)
	}
}

// stopListening has nobody be accepted any more: who connects waits in the socket that is kept.
func (s *Server) stopListening(l *location) {
	s.mu.Lock()
	listener := l.listener
	s.mu.Unlock()
	if listener != nil {
		_ = listener.Close()
	}
}

// tryListen has a location that was restored listen on its address.
func (s *Server) tryListen(l *location) error {
	listener, err := s.bind(l, "")
	if err != nil {
		s.setDeaf(l, nil, err)
	} else if listener != nil {
		s.answer(l, listener)
	}
	return err
}

// listenLater waits until the address of a location is free again, or the location has another.
func (s *Server) listenLater(l *location) {
	for {
		select {
		case <-time.After(listenAgain):
		case <-s.ctx.Done():
			return
		}
		release := s.takeOwn(l)
		removed := s.isRemoved(l)
		var err error
		if !removed {
			err = s.tryListen(l)
		}
		release()
		if removed {
			return
		}
		if err == nil {
			s.mu.Lock()
			address := l.address
			s.mu.Unlock()
			s.opts.Log.Info("a location listens again", "location", l.name, "address", address)
			s.changed()
			return
		}
	}
}

// checkAddress refuses to listen where other machines can reach it, unless that was allowed.
func (s *Server) checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%w: listen address %.200q is not host:port: %w", errRequest, address, err)
	}
	if local.IsHost(host) || s.opts.AllowRemote {
		return nil
	}
	return fmt.Errorf("%w: %s can be reached from other machines, and versions do not ask who calls: use a loopback address, or start the codeserver with --allow-unauthenticated-remote-access",
		errRefused, address)
}

// sameAddress reports whether a location that listens on now is where asked wants it; port 0 is any port.
func sameAddress(asked, now string) bool {
	a, err := net.ResolveTCPAddr("tcp", asked)
	if err != nil {
		return false
	}
	n, err := net.ResolveTCPAddr("tcp", now)
	if err != nil {
		return false
	}
	every := func(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }
	return (a.Port == 0 || a.Port == n.Port) && (a.IP.Equal(n.IP) || every(a.IP) && every(n.IP))
}
