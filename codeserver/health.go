package codeserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// healthTimes say how a version is probed after it has become ready.
type healthTimes struct {
	every   time.Duration // between two probes
	timeout time.Duration // of one
	silent  time.Duration // without an answer, and without using the processor: it hangs
	busy    time.Duration // without an answer, while it uses the processor: it hangs all the same
}

var defaultHealth = healthTimes{every: 5 * time.Second, timeout: 5 * time.Second, silent: time.Minute, busy: 5 * time.Minute}

// busyShare is the part of one processor that tells a server that computes, and answers nobody meanwhile, from one that
// waits for something that does not come.
const busyShare = 0.05

// watchHealth probes a version's process until it is replaced or ends, and has it replaced when it hangs.
func (s *Server) watchHealth(l *location, v *version, run *running) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.mu.Lock()
	run.unwatch = cancel
	s.mu.Unlock()
	s.tasks.Go(func() {
		defer cancel()
		for {
			why := s.untilHung(ctx, v, run)
			if why == nil || s.replaceHung(ctx, l, v, run, why) {
				return
			}
		}
	})
}

// untilHung returns why a version counts as hung, or nil when ctx or the process has ended.
func (s *Server) untilHung(ctx context.Context, v *version, run *running) error {
	ask, done, err := newProbe(v.spec.GetEntry(), run.port)
	if err != nil {
		return nil // it was made for the same entry before, when the version became ready
	}
	defer done()
	h := s.opts.health
	var silent, idle time.Time // since when it has not answered, and not used the processor either
	used, last, answered := time.Duration(0), time.Time{}, int64(-1)
	for {
		select {
		case <-time.After(h.every):
		case <-run.worker.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
		// Requests that it answers are as good as probes.
		n := v.stats.Counts()
		if good := n.Answered - n.Failed; good != answered {
			answered, silent = good, time.Time{}
			continue
		}
		once, cancel := context.WithTimeout(ctx, h.timeout)
		err := ask(once)
		cancel()
		if err == nil || errors.Is(err, errUnwell) {
			silent = time.Time{}
			continue
		}
		now, cpu := time.Now(), worker.CPU(run.worker.PID())
		switch {
		case silent.IsZero():
			silent, idle = now.Add(-h.timeout), now.Add(-h.timeout)
		case cpu-used > time.Duration(busyShare*float64(now.Sub(last))):
			idle = now
		}
		used, last = cpu, now
		if quiet := now.Sub(silent); now.Sub(idle) >= h.silent || quiet >= h.busy {
			return fmt.Errorf("it has not answered for %s, of which it did not use the processor for the last %s; its last probe: %w",
				quiet.Round(time.Millisecond), now.Sub(idle).Round(time.Millisecond), err)
		}
	}
}

// replaceHung starts another process of a version beside one that hangs, moves the traffic to it and ends the one that
// hangs. It reports whether there is nothing left to watch; the process that hangs stays where no other comes up.
func (s *Server) replaceHung(ctx context.Context, l *location, v *version, run *running, why error) bool {
	defer s.takeOwn(l)()
	s.mu.Lock()
	gone := l.current != v || v.running != run || ctx.Err() != nil
	log := v.log
	s.mu.Unlock()
	if gone {
		return true
	}
	// A deploy may have had the turn for long.
	waiting, cancel := context.WithTimeout(ctx, s.opts.health.timeout)
	defer cancel()
	if waitReady(waiting, v.spec.GetEntry(), run.port, run.worker) == nil {
		return false
	}
	s.mu.Lock()
	v.ends++
	v.ended, v.endedAt = why.Error(), time.Now()
	run.hung = true
	s.mu.Unlock()
	s.opts.Log.Error("a version hangs, another process of it is started", "location", l.name, "version", v.name, "error", why)
	log.write([]byte(worker.OwnLine + why.Error() + "; another process is started in its place"))
	return s.fallBack(l, v) || s.another(l, v, run)
}

// another starts another process of a version, moves the traffic to it and ends the one that runs, which stays where no
// other comes up. The caller has the turn.
func (s *Server) another(l *location, v *version, run *running) bool {
	again, err := newVersion(v.spec)
	if err != nil {
		return true
	}
	s.mu.Lock()
	again.deployed, again.ends, again.restarts, again.stats = v.deployed, v.ends, v.restarts+1, v.stats
	again.location, again.spent, again.ended = l, v.spent, v.ended
	again.endedAt = v.endedAt
	s.mu.Unlock()
	t := &transition{l: l, v: again, again: true}
	s.announce(l, again)
	t.run, err = s.start(s.ctx, l, again, defaultReady, s.keepStages(again, func(*codeserverpb.Stage) {}))
	if err == nil {
		if err = s.switchAll([]*transition{t}); err == nil {
			s.mu.Lock()
			l.done.replaced++
			s.mu.Unlock()
			return true
		}
	}
	s.opts.Log.Error("no other process takes the place of one that is to end", "location", l.name, "version", v.name, "error", err)
	s.abandon([]*transition{t})
	s.unannounce(l, again)
	s.mu.Lock()
	run.hung = false
	s.mu.Unlock()
	return false
}
