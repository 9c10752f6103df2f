package codeserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/pexpress/pexpress/codeserver/limits"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// orphan is a process of the codeserver before.
type orphan struct {
	*worker.Orphan
	record record
	l      *location
	v      *version
}

// findOrphans connects to the processes that the codeserver before has left, and ends what it has left without a shim that
// could be connected to.
func (s *Server) findOrphans() []*worker.Orphan {
	found, err := worker.Orphans(s.runDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opts.Log.Warn("processes of the codeserver before", "error", err)
	}
	theirs := map[int]bool{}
	for _, o := range found {
		theirs[o.PID()] = true
	}
	if err := s.limits.Sweep(func(pid int) bool { return theirs[pid] || worker.Owned(pid) }); err != nil {
		s.opts.Log.Error("an earlier codeserver has left processes", "error", err)
	}
	if err := s.limits.Remember(); err != nil {
		s.opts.Log.Warn("who ends this codeserver from another cgroup does not find those of its versions", "error", err)
	}
	return found
}

// adoptAll takes over the processes that the codeserver before has left, those that served and those that were replaced
// and have not ended, and ends all others. The state says what is current; what a process was there for says its shim.
func (s *Server) adoptAll(found []*worker.Orphan) {
	var all []*orphan
	for _, w := range found {
		o := &orphan{Orphan: w}
		if err := s.identify(o); err != nil {
			s.endOrphan(o, err)
			continue
		}
		all = append(all, o)
	}
	// Of several processes of the current version the first is the one to serve: the latest that has served before.
	rank := map[role]int{serving: 0, starting: 1, draining: 2}
	slices.SortStableFunc(all, func(a, b *orphan) int {
		if d := rank[a.record.Role] - rank[b.record.Role]; d != 0 {
			return d
		}
		return b.record.Since.Compare(a.record.Since)
	})
	for _, o := range all {
		if err := s.adopt(o); err != nil {
			s.endOrphan(o, err)
		}
	}
}

// identify finds out of which version an orphan is, one that is kept and whose files are there.
func (s *Server) identify(o *orphan) error {
	var err error
	if o.record, err = readRecord(o.Record); err != nil {
		return err
	}
	for _, dir := range o.record.Dirs {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("its files are gone: %w", err)
		}
	}
	l := s.locations[o.record.Location]
	if l == nil {
		return errors.New("its location is not there any more")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(l.versions, func(v *version) bool { return v.name == o.record.Version })
	if i < 0 {
		return errors.New("its version is not kept")
	}
	o.l, o.v = l, l.versions[i]
	return nil
}

// adopt takes a process over in its role.
func (s *Server) adopt(o *orphan) error {
	l, v, as := o.l, o.v, o.record.Role
	s.mu.Lock()
	second := v.running != nil
	current := v == l.current && !second
	s.mu.Unlock()
	if !current && as == starting {
		return errors.New("it was being deployed")
	}
	if second { // a process of the same version that was replaced
		twin, err := newVersion(v.spec)
		if err != nil {
			return err
		}
		s.mu.Lock()
		twin.deployed = v.deployed
		l.versions = append(slices.Clone(l.versions), twin)
		s.mu.Unlock()
		v = twin
	}
	log, err := s.openLog(l, v)
	if err != nil {
		return err
	}
	group := s.limits.Adopt(o.PID(), groupLimits(v.spec))
	if group == nil {
		group = s.limits.None(groupLimits(v.spec))
	}
	w := o.Adopt(worker.Spec{Log: log.write, Group: group, Within: s.opts.AdoptWithin})
	s.mu.Lock()
	l.own(v)
	s.mu.Unlock()
	run := s.newRunning(w, v, group, o.record)
	log.write([]byte(worker.OwnLine + "the codeserver was started anew, and has taken this process over"))
	s.opts.Log.Info("a process was taken over", "location", l.name, "version", v.name, "pid", w.PID(), "role", as)
	s.mu.Lock()
	v.log, v.running, v.forked, v.state = log, run, o.record.Forked, codeserverpb.State_STARTING
	s.mu.Unlock()
	switch {
	case current && as == serving:
		s.serveOn(l, v, run)
	case current:
		s.tasks.Go(func() { s.confirm(l, v, run) })
	default:
		l.proxy.Remember(run.backend) // calls about what runs in it
		s.retire(l, v)
		s.tasks.Go(func() { s.watchProcess(l, v, run) })
	}
	return nil
}

// serveOn has a process that was taken over get the traffic.
func (s *Server) serveOn(l *location, v *version, run *running) {
	s.mu.Lock()
	v.state, v.err = codeserverpb.State_READY, ""
	s.mu.Unlock()
	s.note(run, serving)
	l.proxy.Point(run.backend)
	s.tasks.Go(func() { s.watchProcess(l, v, run) })
	s.watchHealth(l, v, run)
	s.tasks.Go(func() { s.inspect(l, v, run) })
}

// confirm waits until a process that was taken over is ready. The codeserver before did not come to give it the traffic.
func (s *Server) confirm(l *location, v *version, run *running) {
	release := s.takeOwn(l)
	s.mu.Lock()
	wanted := l.current == v && v.running == run && s.ctx.Err() == nil
	s.mu.Unlock()
	if !wanted {
		release()
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, defaultReady)
	defer cancel()
	err := waitReady(ctx, v.spec.GetEntry(), run.port, run.worker)
	if err == nil {
		s.serveOn(l, v, run)
		release()
		s.changed()
		return
	}
	if s.ctx.Err() == nil {
		s.opts.Log.Warn("a process that was taken over does not become ready", "location", l.name, "version", v.name, "error", err)
		s.fail(v, run)
	}
	release()
	s.resume(l, v, 0)
}

// inspect has a version's process replaced if the files of its sources were changed while no codeserver was there: a digest
// names what runs.
func (s *Server) inspect(l *location, v *version, run *running) {
	source, _, err := s.loader.Load(s.ctx, v.source)
	if err != nil {
		if s.ctx.Err() == nil {
			s.opts.Log.Warn("the sources of a process that was taken over are not complete", "location", l.name, "version", v.name, "error", err)
		}
		return // it serves, and no other could be started
	}
	if s.loader.Unchanged(source, sourceSelection(run.record.User)) {
		return
	}
	defer s.takeOwn(l)()
	s.mu.Lock()
	gone := l.current != v || v.running != run || s.ctx.Err() != nil
	s.mu.Unlock()
	if gone {
		return
	}
	s.opts.Log.Warn("the files of a process that was taken over were changed, another is started in its place", "location", l.name, "version", v.name)
	s.another(l, v, run)
}

// goesOn reports whether a location's current version was taken over.
func (s *Server) goesOn(l *location) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.current.running != nil
}

// endOrphan ends a process that has no place here, in the background: a shim that does not answer takes a while.
func (s *Server) endOrphan(o *orphan, why error) {
	s.opts.Log.Warn("a process of the codeserver before is ended", "pid", o.PID(), "location", o.record.Location, "error", why)
	s.tasks.Go(func() { endOrphan(s.flows, s.limits, o.Orphan) })
}

func endOrphan(ctx context.Context, host *limits.Host, o *worker.Orphan) {
	var group *limits.Group
	for _, pid := range o.Processes() {
		if group = host.Adopt(pid, limits.Limits{}); group != nil {
			break
		}
	}
	o.End(ctx, group)
}
