package codeserver

import (
	"context"
	"net"
	"slices"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// switchTo moves the location to a version that is ready. State is on disk before traffic moves: a restart in between
// starts the new version, which has shown that it can.
func (s *Server) switchTo(l *location, v *version, run *running, listener net.Listener) error {
	s.mu.Lock()
	old, oldPrevious, oldAddress := l.current, l.previous, l.address
	if old != nil && old.name != v.name {
		l.previous = old
	}
	if l.previous != nil && l.previous.name == v.name {
		l.previous = nil
	}
	l.current = v
	l.versions = append([]*version{v}, l.versions...)
	l.loading = slices.DeleteFunc(slices.Clone(l.loading), func(x *version) bool { return x == v })
	if listener != nil {
		l.address = listener.Addr().String()
	}
	v.state, v.err, run.since = codeserverpb.State_READY, "", time.Now()
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.mu.Lock()
		l.current, l.previous, l.address = old, oldPrevious, oldAddress
		l.versions = slices.DeleteFunc(slices.Clone(l.versions), func(x *version) bool { return x == v })
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	l.versions = slices.DeleteFunc(slices.Clone(l.versions), func(x *version) bool {
		return x != v && x.name == v.name && x.running == nil
	})
	s.mu.Unlock()
	l.proxy.Point(run.backend)
	if listener != nil {
		s.answer(l, listener)
	}
	s.tasks.Go(func() { s.watchProcess(l, v, run) })
	if old != nil {
		s.retire(l, old)
	}
	s.changed()
	return nil
}

// move gives a location another address and nothing else; a nil listener leaves it where it is.
func (s *Server) move(l *location, listener net.Listener) error {
	if listener == nil {
		return nil
	}
	s.mu.Lock()
	before := l.address
	l.address = listener.Addr().String()
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.mu.Lock()
		l.address = before
		s.mu.Unlock()
		return err
	}
	s.answer(l, listener)
	s.changed()
	return nil
}

// retire lets a replaced version finish what it began, then ends it.
func (s *Server) retire(l *location, v *version) {
	s.mu.Lock()
	run, log := v.running, v.log
	if run != nil {
		run.stopped = true
		v.state = codeserverpb.State_DRAINING
	} else {
		v.state, v.err = codeserverpb.State_STOPPED, ""
	}
	s.mu.Unlock()
	if run == nil {
		return
	}
	s.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(s.flows, s.opts.DrainTimeout)
		defer cancel()
		if err := drain(ctx, v, run); err != nil && s.flows.Err() == nil {
			s.opts.Log.Warn("a replaced version is ended before its work is", "location", l.name, "version", v.name, "error", err)
		}
		run.worker.Stop(context.Background())
		_ = run.backend.Close()
		s.mu.Lock()
		v.running, v.state = nil, codeserverpb.State_STOPPED
		s.mu.Unlock()
		log.close()
		s.changed()
		s.retainSoon()
	})
}
