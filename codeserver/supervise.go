package codeserver

import (
	"errors"
	"fmt"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
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
		v.ended, v.endedAt = run.worker.Err().Error(), time.Now()
		v.restarts++
		l.done.restarts++
		v.ends++
		if time.Since(run.since) > lastPause {
			v.pause = 0
		}
		v.pause = nextPause(v.pause)
		if run.unwatch != nil {
			run.unwatch()
		}
		// What comes now is told that no version is up, and when to ask again.
		if l.current == v {
			l.proxy.Point(nil)
		}
	}
	pause, next := l.pauseOf(v), l.nextOf(v)
	if !asked {
		v.err = v.ended + "; " + next
	}
	s.mu.Unlock()
	if asked {
		return
	}
	_ = run.backend.Close()
	s.opts.Log.Error("a version ended by itself", "location", l.name, "version", v.name, "error", run.worker.Err())
	log.write([]byte(worker.OwnLine + run.worker.Err().Error() + "; " + next))
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
		v.ends++
		pause = l.pauseOf(v)
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
	if idle || s.ctx.Err() != nil || s.fallBack(l, v) {
		return true
	}
	run, err := s.start(s.ctx, l, v, defaultReady, s.keepStages(v, func(*codeserverpb.Stage) {}))
	if err != nil {
		s.mu.Lock()
		v.state, v.err, v.ended, v.endedAt = codeserverpb.State_FAILED, err.Error(), err.Error(), time.Now()
		if errors.Is(err, errNotReady) { // there was a process
			v.restarts++
			l.done.restarts++
		}
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
	s.note(run, serving)
	l.proxy.Point(run.backend)
	s.tasks.Go(func() { s.watchProcess(l, v, run) })
	s.watchHealth(l, v, run)
	s.changed()
	return true
}

// loops reports whether a version is one that keeps ending: it has ended and is not up again, or did so, or did not come up, twice in a
// row at least, and has not run for longer than the last pause since. One that is up after one end may be as good as any.
// Server.mu is held.
func (v *version) loops() bool {
	if !v.isNew() {
		return false
	}
	if v.running == nil {
		return v.pause > 0
	}
	return v.pause > firstPause && time.Since(v.running.since) <= lastPause
}

// isNew reports whether a version has not shown yet that it is good. Server.mu is held.
func (v *version) isNew() bool { return time.Since(v.switched) < fallBackTime }

// A version that has ended by itself this often, this soon after it was deployed, is taken back. One that has served for
// longer was good, and what makes it end is likelier outside of it: a database that is down, a host that has just started.
const (
	maxEnds      = 5
	fallBackTime = 10 * time.Minute
)

// isBad reports whether a version is to be taken back, and there is one to go back to. Server.mu is held.
func (l *location) isBad(v *version) bool {
	return v.ends >= maxEnds && v.isNew() && l.previous != nil
}

// isDue reports whether a version has just become one to be taken back. Server.mu is held.
func (l *location) isDue(v *version) bool { return v.ends == maxEnds && l.isBad(v) }

// pauseOf is how long nothing is done about a version that has ended. Nobody waits for one that is to be taken back, but
// where the one before did not come up either: what is tried again and again is tried with pauses. Server.mu is held.
func (l *location) pauseOf(v *version) time.Duration {
	if l.isDue(v) {
		return 0
	}
	return v.pause
}

// nextOf says what is done about a version that has ended, for its log. Server.mu is held.
func (l *location) nextOf(v *version) string {
	if l.isDue(v) {
		return fmt.Sprintf("that was %d times: the version before, %.12s, is to serve instead", v.ends, l.previous.name)
	}
	return "it is started again in " + v.pause.String()
}

// fallBack moves a location from a version that keeps ending to the one before. That one has none to fall back to: two
// that end do not take turns. It reports whether it has. The caller has the turn.
func (s *Server) fallBack(l *location, v *version) bool {
	s.mu.Lock()
	before, last, ends, due := l.previous, v.ended, v.ends, l.isBad(v)
	s.mu.Unlock()
	if !due {
		return false
	}
	again, err := newVersion(before.spec)
	if err != nil {
		return false
	}
	t := &transition{l: l, v: again}
	if err := s.bring(s.ctx, t, s.keepStages(again, func(*codeserverpb.Stage) {})); err != nil {
		s.opts.Log.Error("the version before does not start either", "location", l.name, "version", before.name, "error", err)
		return false
	}
	why := fmt.Sprintf("it ended or did not come up %d times within %s of its deploy: %s serves %.12s again; the last time: %s",
		ends, fallBackTime, l.name, before.name, last)
	s.mu.Lock()
	v.state, v.failed, v.err = codeserverpb.State_FAILED, why, why
	s.mu.Unlock()
	if err := s.switchAll([]*transition{t}); err != nil {
		s.mu.Lock()
		v.failed = ""
		s.mu.Unlock()
		s.abandon([]*transition{t})
		s.opts.Log.Error("no return to the version before", "location", l.name, "error", err)
		return false
	}
	s.mu.Lock()
	l.done.fallbacks++
	s.mu.Unlock()
	s.opts.Log.Error("a version keeps ending, the one before serves again", "location", l.name, "version", v.name, "again", before.name, "error", last)
	return true
}
