package codeserver

import (
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// A version that ends by itself is started again, after a pause that doubles from the first to the last.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 30 * time.Second
)

// watchProcess waits for the end of a version's process, and starts the version again if nobody asked it to end.
func (s *Server) watchProcess(l *location, v *version, run *running) {
	<-run.worker.Done()
	s.mu.Lock()
	asked := run.stopped || s.ctx.Err() != nil
	if !asked {
		v.running, v.state = nil, codeserverpb.State_FAILED
		v.err = run.worker.Err().Error()
	}
	s.mu.Unlock()
	if asked {
		return
	}
	_ = run.backend.Close()
	s.opts.Log.Error("a version ended by itself", "location", l.name, "version", v.name, "error", run.worker.Err())
	v.log.write([]byte("codeserver: " + run.worker.Err().Error() + "; starting it again"))
	v.log.close()
	s.changed()
	s.resume(l)
}

// resume starts the location's current version, again and again until it is up, replaced or the server ends.
func (s *Server) resume(l *location) {
	for pause := firstPause; s.ctx.Err() == nil; pause = min(2*pause, lastPause) {
		if s.tryResume(l) {
			return
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

// tryResume reports whether there is nothing left to do.
func (s *Server) tryResume(l *location) bool {
	defer s.takeOwn(l)()
	s.mu.Lock()
	v := l.current
	idle := v == nil || v.running != nil
	s.mu.Unlock()
	if idle || s.ctx.Err() != nil {
		return true
	}
	run, err := s.start(s.ctx, l, v, defaultReady, func(*codeserverpb.Stage) {})
	if err != nil {
		s.mu.Lock()
		v.state, v.err = codeserverpb.State_FAILED, err.Error()
		s.mu.Unlock()
		s.changed()
		if s.ctx.Err() == nil {
			s.opts.Log.Error("a version does not start", "location", l.name, "version", v.name, "error", err)
		}
		return false
	}
	s.mu.Lock()
	v.state, v.err = codeserverpb.State_READY, ""
	s.mu.Unlock()
	l.proxy.Point(run.backend)
	s.tasks.Go(func() { s.watchProcess(l, v, run) })
	s.changed()
	return true
}
