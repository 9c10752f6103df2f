package codeserver

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// errEnding is why a call ends that is under way when the server is closed. A deploy has changed nothing then.
var errEnding = fmt.Errorf("%w: the codeserver is ending, do it again when it is up", errUnavailable)

// enter counts a call in for which Close waits, and returns a context that ends with the server.
func (s *Server) enter(ctx context.Context) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errEnding
	}
	s.calls.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		s.calls.Done()
	}, nil
}

// Close ends all versions. Requests under way have until ctx ends; deploys end at once.
func (s *Server) Close(ctx context.Context) error { return s.close(ctx, false) }

// Leave leaves the versions to the next codeserver on the state directory, and else does what Close does. Who connects
// before that one listens waits, as far as Options.Sockets can be passed to it.
func (s *Server) Leave(ctx context.Context) error { return s.close(ctx, s.opts.AdoptWithin > 0) }

func (s *Server) close(ctx context.Context, leave bool) error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	s.cancel()
	var wg sync.WaitGroup
	wg.Go(s.calls.Wait)
	for _, l := range s.all() {
		if !leave {
			s.dropSocket(l)
		}
		wg.Go(func() {
			if leave {
				s.stopListening(l)
				l.proxy.Settle(ctx)
			}
			if l.proxy.Shutdown(ctx) != nil {
				_ = l.proxy.Close()
			}
		})
	}
	wg.Wait()
	if leave { // before the time of those that are being replaced is over
		s.stopAll(true)
	}
	s.endAll()
	s.stopAll(false)
	s.tasks.Wait()
	if s.zygotes != nil {
		s.zygotes.Close()
	}
	var errs []error
	if s.fleet != nil {
		errs = append(errs, s.fleet.Close())
	}
	if s.loader != nil {
		errs = append(errs, s.loader.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) stopAll(leave bool) {
	var wg sync.WaitGroup
	for _, l := range s.all() {
		wg.Go(func() { s.stopVersions(l, leave) })
	}
	wg.Wait()
}
