package codeserver

import (
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// usage returns what a version has used. Requests are those since it was deployed, over all its processes. Server.mu is
// held.
func (v *version) usage() *codeserverpb.Usage {
	n := v.stats.Counts()
	u := &codeserverpb.Usage{Restarts: v.restarts, Requests: n.Begun, FailedRequests: n.Failed}
	if v.running != nil {
		u.ActiveRequests = int64(v.running.backend.InFlight())
	}
	if n.Answered > 0 {
		p50, p99 := v.stats.Latencies()
		u.LatencyP50, u.LatencyP99 = durationpb.New(p50), durationpb.New(p99)
	}
	return u
}

// keepStages has a version remember the steps of its start.
func (s *Server) keepStages(v *version, r report) report {
	return func(st *codeserverpb.Stage) {
		s.mu.Lock()
		v.stages = append(slices.Clip(v.stages), st)
		s.mu.Unlock()
		r(st)
	}
}
