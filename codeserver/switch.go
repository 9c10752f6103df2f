package codeserver

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// transition is the move of one location to a version.
type transition struct {
	req      *codeserverpb.DeployRequest
	l        *location
	v        *version
	run      *running     // the version's process, ready; nil if the location serves it already
	listener net.Listener // where the location is to answer from then on; nil if its address stays
	revived  bool         // the process is one that was kept warm
	again    bool         // it is another process of the current version
	tried    bool         // the version has had a share of the traffic

	// What was before, for the case that the state cannot be kept.
	current, previous *version
	versions          []*version // of the location
	address           string
	was               standing // of v
	failed            string   // why current had
}

// standing is what a switch changes of a version.
type standing struct {
	state              codeserverpb.State
	err, failed        string
	blemish            string
	deployed, switched time.Time
	pause              time.Duration
	ends               int
}

// standing returns a version's. Server.mu is held.
func (v *version) standing() standing {
	return standing{v.state, v.err, v.failed, v.blemish, v.deployed, v.switched, v.pause, v.ends}
}

// stand gives a version back what it had. Server.mu is held.
func (v *version) stand(s standing) {
	v.state, v.err, v.failed, v.blemish = s.state, s.err, s.failed, s.blemish
	v.deployed, v.switched, v.pause, v.ends = s.deployed, s.switched, s.pause, s.ends
}

// switchAll makes all transitions, or on an error none. State is on disk before traffic moves: a restart in between
// starts the new versions, which have shown that they can.
func (s *Server) switchAll(all []*transition) error {
	if !slices.ContainsFunc(all, func(t *transition) bool { return t.run != nil || t.listener != nil }) {
		return nil
	}
	s.mu.Lock()
	for _, t := range all {
		t.apply()
	}
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.mu.Lock()
		for _, t := range all {
			t.revert()
		}
		s.mu.Unlock()
		return err
	}
	for _, t := range all {
		s.complete(t)
	}
	s.changed()
	return nil
}

// apply changes what the location is to serve. Server.mu is held.
func (t *transition) apply() {
	l, v := t.l, t.v
	t.current, t.previous, t.versions, t.address, t.was = l.current, l.previous, l.versions, l.address, v.standing()
	if t.current != nil {
		t.failed = t.current.failed
	}
	if t.listener != nil {
		l.address = t.listener.Addr().String()
	}
	if t.run == nil {
		return
	}
	if t.current != nil && t.current.name != v.name {
		t.leave()
	}
	if l.previous != nil && l.previous.name == v.name {
		l.previous = nil
	}
	blemish := l.blemishOf(v.name)
	l.current = v
	l.versions = append([]*version{v}, without(l.versions, v)...)
	l.loading = without(l.loading, v)
	if t.revived {
		v.deployed, v.pause, v.ends = time.Now(), 0, 0
	}
	v.state, v.err, t.run.since = codeserverpb.State_READY, "", time.Now()
	v.failed, v.blemish, v.switched = "", blemish, t.run.since
	if t.again {
		v.switched = t.current.switched // it is as new, or as good, as it was
	}
}

// blemishOf returns why a version has failed, or had, "" if it is as good as any. Server.mu is held.
func (l *location) blemishOf(name string) string {
	for _, v := range l.versions {
		if why := cmp.Or(v.failed, v.blemish); v.name == name && why != "" {
			return why
		}
	}
	return ""
}

// leave makes the version that served the one to go back to, unless it has failed: then that stays the one before it.
// Server.mu is held.
func (t *transition) leave() {
	c := t.current
	if c.failed == "" && c.loops() {
		c.failed = fmt.Sprintf("it ended, hung or did not come up %d times, until %s was moved to %.12s; the last time: %s", c.ends, t.l.name, t.v.name, c.ended)
	}
	switch {
	case !c.isNew():
		c.blemish = "" // it has shown that it is good
	case c.failed == "":
		c.failed = c.blemish
	}
	if c.failed == "" {
		t.l.previous = c
	}
}

// revert undoes apply. Server.mu is held.
func (t *transition) revert() {
	t.l.address = t.address
	if t.run == nil {
		return
	}
	t.l.current, t.l.previous, t.l.versions = t.current, t.previous, t.versions
	t.v.stand(t.was)
	if t.current != nil {
		t.current.failed = t.failed
	}
	if t.revived {
		return
	}
	t.l.loading = append(slices.Clone(t.l.loading), t.v) // until abandon has ended it, what it needs is kept
}

func without(versions []*version, v *version) []*version {
	return slices.DeleteFunc(slices.Clone(versions), func(x *version) bool { return x == v })
}

// complete moves the traffic, when the state is on disk.
func (s *Server) complete(t *transition) {
	l, v, run := t.l, t.v, t.run
	if run != nil {
		s.mu.Lock()
		l.versions = slices.DeleteFunc(slices.Clone(l.versions), func(x *version) bool {
			return x != v && x.name == v.name && x.running == nil
		})
		l.canary, l.canaryPercent = nil, 0
		l.done.switches++
		s.mu.Unlock()
		s.note(run, serving)
		s.mu.Lock()
		if v.running == run {
			l.proxy.Point(run.backend)
		} else { // one that was revived has ended meanwhile, and is about to be started again
			l.proxy.Point(nil)
		}
		s.mu.Unlock()
	}
	if t.listener != nil {
		s.answer(l, t.listener)
	}
	if run == nil {
		return
	}
	if !t.revived {
		s.tasks.Go(func() { s.watchProcess(l, v, run) })
	}
	s.watchHealth(l, v, run)
	if t.current != nil {
		s.retire(l, t.current)
	}
	s.letGo(l)
}

// abandon leaves everything as it was before a deploy that has failed.
func (s *Server) abandon(all []*transition) {
	for _, t := range all {
		if t.listener != nil {
			_ = t.listener.Close()
		}
		if t.tried {
			s.withdraw(t.l)
		}
		switch {
		case t.run == nil:
		case t.revived || t.tried:
			s.retire(t.l, t.v)
		default:
			s.fail(t.v, t.run)
			s.unannounce(t.l, t.v)
		}
	}
}

// retirement is the time in which a replaced version finishes what it began, and may be kept warm after.
type retirement struct {
	cancel context.CancelFunc // ends it without ending the version
	letGo  context.CancelFunc // ends only the time for which the version is kept warm
	ending bool               // too late: the version is being ended
}

// retire lets a replaced version finish what it began, keeps it warm for a while if it is the one before, then ends it.
func (s *Server) retire(l *location, v *version) {
	s.mu.Lock()
	run := v.running
	if run == nil {
		v.rest()
		s.mu.Unlock()
		return
	}
	run.stopped, v.state = true, codeserverpb.State_DRAINING
	if run.unwatch != nil {
		run.unwatch()
	}
	ctx, cancel := context.WithCancel(s.flows)
	begun := run.record.lasted(draining, s.opts.now())
	kept, letGo := context.WithTimeout(ctx, s.opts.KeepWarm-begun)
	end := &retirement{cancel: cancel, letGo: letGo}
	run.retired = end
	s.mu.Unlock()
	s.note(run, draining)
	s.tasks.Go(func() {
		defer cancel()
		defer letGo()
		limited, done := context.WithTimeout(ctx, s.opts.DrainTimeout-begun)
		defer done()
		err := drain(limited, v, run)
		if err == nil {
			s.keepWarm(kept, l, v, run)
		} else if ctx.Err() == nil {
			s.opts.Log.Warn("a replaced version is ended before its work is", "location", l.name, "version", v.name, "error", err)
		}
		s.mu.Lock()
		revived := run.retired != end
		end.ending = true
		s.mu.Unlock()
		if !revived {
			s.endRetired(l, v, run)
		}
	})
}

// rest has a version that was replaced say what it is without a process: kept, or failed and why. Server.mu is held.
func (v *version) rest() {
	v.state, v.err = codeserverpb.State_STOPPED, v.failed
	if v.failed != "" {
		v.state = codeserverpb.State_FAILED
	}
}

// yieldFor is how long a version that ends gives way to the others. Python's end takes twice the processor time of a forked start.
const yieldFor = time.Second

// endRetired ends a version that has finished what it began.
func (s *Server) endRetired(l *location, v *version, run *running) {
	run.group.Yield(yieldFor)
	run.worker.Stop(context.Background())
	_ = run.backend.Close()
	s.mu.Lock()
	v.running = nil
	v.rest()
	log := v.log
	s.mu.Unlock()
	log.close()
	s.unannounce(l, v) // one that was tried, and has not become one of the location's
	s.changed()
	s.retainSoon()
}
