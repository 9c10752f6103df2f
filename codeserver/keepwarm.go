package codeserver

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/pexpress/pexpress/codeserver/loader"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// keepWarm keeps a replaced version's process that has nothing left to do, if it is the one that a rollback goes to and
// there is memory, until ctx ends.
func (s *Server) keepWarm(ctx context.Context, l *location, v *version, run *running) {
	if ctx.Err() != nil || !memoryToSpare() {
		return
	}
	s.mu.Lock()
	wanted := l.previous == v
	if wanted && run.retired != nil {
		v.state = codeserverpb.State_READY
	}
	s.mu.Unlock()
	if !wanted {
		return
	}
	s.changed()
	select {
	case <-run.worker.Done():
	case <-ctx.Done():
	}
}

// letGo ends the warm versions of a location that a rollback does not go to.
func (s *Server) letGo(l *location) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range l.versions {
		if v != l.previous && v.running != nil && v.running.retired != nil {
			v.running.retired.letGo()
		}
	}
}

// stillAnswers is how long a version that was kept warm may take to show that it is ready.
const stillAnswers = 5 * time.Second

// revive has a transition use the process of a version that was replaced and has not ended, if there is one and it is
// ready still.
func (s *Server) revive(ctx context.Context, t *transition, r report) bool {
	v, run := s.comeBack(t.l, t.v.name)
	if v == nil {
		return false
	}
	begin := time.Now()
	waiting, cancel := context.WithTimeout(ctx, stillAnswers)
	defer cancel()
	if err := waitReady(waiting, v.spec.GetEntry(), run.port, run.worker); err != nil {
		s.opts.Log.Warn("a version that was kept does not answer any more", "location", t.l.name, "version", v.name, "error", err)
		s.retire(t.l, v)
		return false
	}
	t.v, t.run, t.revived = v, run, true
	r.stage("ready", begin, loader.Stats{})
	return true
}

// comeBack ends the retirement of a version's process, so that it goes on.
func (s *Server) comeBack(l *location, name string) (*version, *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range l.versions {
		run := v.running
		if v.name != name || run == nil || run.retired == nil || run.retired.ending {
			continue
		}
		select {
		case <-run.worker.Done():
			continue
		default:
		}
		run.retired.cancel()
		run.retired, run.stopped, v.state = nil, false, codeserverpb.State_READY
		return v, run
	}
	return nil, nil
}

// memoryToSpare reports whether a quarter of the machine's memory could be had: a version is not kept warm at the expense
// of those that serve.
func memoryToSpare() bool {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return false
	}
	defer f.Close()
	var total, available int64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "MemTotal: %d", &total)
		_, _ = fmt.Sscanf(lines.Text(), "MemAvailable: %d", &available)
	}
	return total > 0 && available >= total/4
}
