package codeserver

import (
	"context"
	"fmt"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// remove ends a location. The state is on disk before anything else changes: a restart in between does not bring it back.
func (s *Server) remove(ctx context.Context, req *codeserverpb.RemoveRequest) error {
	l, release, err := s.claim(ctx, req.GetLocation(), false)
	if err != nil {
		return err
	}
	defer release()
	if err := s.checkCurrent(l, req.IfCurrent); err != nil {
		return err
	}
	s.mu.Lock()
	current, previous := l.current, l.previous
	l.current, l.previous, l.removed = nil, nil, true
	s.mu.Unlock()
	if current == nil {
		return nil // a deploy that failed left it, and release takes it away
	}
	if err := s.save(); err != nil {
		s.mu.Lock()
		l.current, l.previous, l.removed = current, previous, false
		s.mu.Unlock()
		return err
	}
	l.proxy.Point(nil)
	s.mu.Lock()
	listener := l.listener
	l.listener = nil
	s.leaving = append(s.leaving, l)
	s.forget(l.name)
	s.mu.Unlock()
	s.dropSocket(l)
	if listener != nil {
		_ = listener.Close()
	}
	s.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(s.flows, s.opts.DrainTimeout)
		defer cancel()
		_ = l.proxy.Shutdown(ctx)
		_ = l.proxy.Close()
	})
	s.retire(l, current)
	s.letGo(l)
	s.retainSoon()
	s.opts.Log.Info("removed", "location", l.name)
	return nil
}

func (s *Server) isRemoved(l *location) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.removed
}

// checkCurrent refuses a call whose maker has seen another version serve than the one that does. The caller has the
// location's turn, so that it stays so.
func (s *Server) checkCurrent(l *location, expected *string) error {
	if expected == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := ""
	if l.current != nil {
		now = l.current.name
	}
	if now != *expected {
		return fmt.Errorf("%w: %s was changed by another deploy meanwhile: it serves %.12q and not %.12q", errAborted, l.name, now, *expected)
	}
	return nil
}
