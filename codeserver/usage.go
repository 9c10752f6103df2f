package codeserver

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/proxy"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// own makes a version one of the location's: what it uses counts as the location's, too. Server.mu is held.
func (l *location) own(v *version) {
	if v.location == nil {
		v.location, v.stats = l, proxy.NewStats(l.stats)
	}
}

// usage returns what a version has used, but for the process that runs: measure adds that. Server.mu is held.
func (v *version) usage() *codeserverpb.Usage {
	n := v.stats.Counts()
	u := &codeserverpb.Usage{
		Restarts: v.restarts, Requests: n.Begun, FailedRequests: n.Failed,
		Cpu: durationpb.New(v.spent.cpu), MemoryPeakBytes: v.spent.peak,
	}
	if v.running != nil {
		u.ActiveRequests = int64(v.running.backend.InFlight())
	}
	if n.Answered > 0 {
		p50, p99 := v.stats.Latencies()
		u.LatencyP50, u.LatencyP99 = durationpb.New(p50), durationpb.New(p99)
	}
	return u
}

// account adds what a process has used to what its version and location have, when it has ended.
func (s *Server) account(v *version, run *running) {
	<-run.worker.Done()
	all := run.group.Last()
	s.mu.Lock()
	defer s.mu.Unlock()
	run.counted = true
	v.spent.cpu += all.CPU
	v.spent.peak = max(v.spent.peak, all.Peak)
	v.location.past += all.CPU
}

// measure adds to a location's message what its versions' processes use now, or have used no longer than age ago. That is
// read without Server.mu: it takes some time of each process's.
func (s *Server) measure(l *location, m *codeserverpb.Location, age time.Duration) {
	for _, vm := range m.GetVersions() {
		s.mu.Lock()
		i := slices.IndexFunc(l.known(), func(v *version) bool {
			return v.name == vm.GetName() && v.running != nil && int64(v.running.worker.PID()) == vm.GetPid()
		})
		if i < 0 {
			s.mu.Unlock()
			continue
		}
		v := l.known()[i]
		run := v.running
		old := run.measured.IsZero() || time.Since(run.measured) > age
		s.mu.Unlock()
		if old {
			now := run.group.Usage(func() []int { return processIDs(run.worker.PID()) })
			s.mu.Lock()
			run.usage, run.measured = now, time.Now()
			s.mu.Unlock()
		}
		s.mu.Lock()
		now, at := run.usage, run.measured
		cpu, peak := v.spent.cpu, max(v.spent.peak, now.Peak)
		if !run.counted {
			cpu += now.CPU
		}
		s.mu.Unlock()
		vm.Usage.Cpu, vm.Usage.Processes = durationpb.New(cpu), now.Processes
		vm.Usage.MemoryBytes, vm.Usage.MemoryPeakBytes = now.Memory, peak
		vm.Usage.MeasuredAt = timestamppb.New(at)
	}
}

func processIDs(pid int) []int {
	pids := []int{pid}
	for _, p := range worker.Descendants(pid) {
		pids = append(pids, p.PID)
	}
	return pids
}

// keepStages has a version remember the steps of its start, and those who watch see them.
func (s *Server) keepStages(v *version, r report) report {
	return func(st *codeserverpb.Stage) {
		s.mu.Lock()
		v.stages = append(slices.Clip(v.stages), st)
		s.mu.Unlock()
		s.metrics.stage(st)
		s.changed()
		r(st)
	}
}
