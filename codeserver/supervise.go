package codeserver

import (
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// A version that ends by itself is started again, after a pause that doubles from the first to the last. One that ran
// for longer than the last pause begins with the first again.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 30 * time.Second
)

func nextPause(p time.Duration) time.Duration { return min(max(firstPause, 2*p), lastPause) }

// watchProcess waits for the end of a version's process, and starts the version again if nobody asked it to end.
func (s *Server) watchProcess(l *location, v *version, run *running) {
	<-run.worker.Done()
	s.mu.Lock()
	asked := run.stopped || s.ctx.Err() != nil
	log := v.log
	if !asked {
		v.running, v.state = nil, codeserverpb.State_FAILED
		v.err = run.worker.Err().Error()
		if time.Since(run.since) > lastPause {
			v.pause = 0
		}
		v.pause = nextPause(v.pause)
		// What comes now is told that no version is up, and when to ask again.
		if l.current == v {
			l.proxy.Point(nil)
		}
	}
	pause := v.pause
	s.mu.Unlock()
	if asked {
		return
	}
	_ = run.backend.Close()
	s.opts.Log.Error("a version ended by itself", "location", l.name, "version", v.name, "error", run.worker.Err())
	log.write([]byte("codeserver: " + run.worker.Err().Error() + "; it is started again in " + pause.String()))
	log.close()
	s.changed()
	s.resume(l, v, pause)
}

// resume starts the location's current version, again and again until it is up, replaced or the server ends.
func (s *Server) resume(l *location, v *version, pause time.Duration) {
	for {
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return
		}
		if s.tryResume(l, v) {
			return
		}
		s.mu.Lock()
		v.pause = nextPause(v.pause)
		pause = v.pause
		s.mu.Unlock()
	}
}

// tryResume reports whether there is nothing left to do.
func (s *Server) tryResume(l *location, v *version) bool {
	defer s.takeOwn(l)()
	s.mu.Lock()
	idle := l.current != v || v.running != nil
	if !idle {
		v.state = codeserverpb.State_STARTING
	}
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
	v.state, v.err, run.since = codeserverpb.State_READY, "", time.Now()
	s.mu.Unlock()
	l.proxy.Point(run.backend)
	s.tasks.Go(func() { s.watchProcess(l, v, run) })
	s.changed()
	return true
}
