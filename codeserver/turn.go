package codeserver

import (
	"context"
	"fmt"
)

// turn is the right to change what a location runs: one holds it at a time.
type turn struct {
	own  bool // a start by the server itself, after a restart or a crash
	done chan struct{}
}

// claim returns the location of that name with its turn taken, with create a new one if there is none. A deploy that
// meets another is refused, since one of them would undo the other's work unseen; one that meets the server's own start
// waits for it.
func (s *Server) claim(ctx context.Context, name string, create bool) (l *location, release func(), err error) {
	for {
		l, release, held := s.tryClaim(name, create)
		switch {
		case l == nil:
			return nil, nil, fmt.Errorf("%w: no location %.80q", errNotFound, name)
		case release != nil:
			return l, release, nil
		case !held.own:
			return nil, nil, fmt.Errorf("%w: another deploy of %s is under way", errAborted, name)
		}
		select {
		case <-held.done:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

func (s *Server) tryClaim(name string, create bool) (*location, func(), *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.locations[name]
	if !ok && !create {
		return nil, nil, nil
	}
	if !ok {
		l = s.newLocation(name)
		s.locations[name] = l
	}
	if l.turn != nil {
		return l, nil, l.turn
	}
	return l, s.hold(l, false), nil
}

// hold gives the turn, which is free, to the caller. Server.mu is held.
func (s *Server) hold(l *location, own bool) (release func()) {
	t := &turn{own: own, done: make(chan struct{})}
	l.turn = t
	return func() {
		s.mu.Lock()
		l.turn = nil
		// One that has never served anything has no reason to be: its first deploy failed.
		empty := l.current == nil
		if empty && s.locations[l.name] == l {
			delete(s.locations, l.name)
		}
		s.mu.Unlock()
		close(t.done)
		if empty && !s.isRemoved(l) { // where requests may be under way still
			_ = l.proxy.Close()
		}
		s.changed()
	}
}

// takeOwn waits for the turn on the server's behalf.
func (s *Server) takeOwn(l *location) (release func()) {
	for {
		s.mu.Lock()
		held := l.turn
		if held == nil {
			release = s.hold(l, true)
		}
		s.mu.Unlock()
		if release != nil {
			return release
		}
		<-held.done
	}
}
