package codeserver

import (
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// leastEvery is how often usage is sent at most, and measureEvery how often it is read for all who watch: it takes a
// millisecond of a processor for each process.
const (
	leastEvery   = 500 * time.Millisecond
	measureEvery = leastEvery / 2
)

// Watch implements codeserverpb.CodeServerServer.
func (s *service) Watch(req *codeserverpb.WatchRequest, stream grpc.ServerStreamingServer[codeserverpb.Location]) error {
	var ticks <-chan time.Time
	if req.GetUsageEvery() != nil {
		every := req.GetUsageEvery().AsDuration()
		if req.GetUsageEvery().CheckValid() != nil || every < leastEvery {
			return toStatus(fmt.Errorf("%w: usage_every is %s: the least is %s, and without it only changes are sent", errRequest, every, leastEvery))
		}
		t := time.NewTicker(every)
		defer t.Stop()
		ticks = t.C
	}
	changes, stop := s.server.watch()
	defer stop()
	sent := map[string]*codeserverpb.Location{} // what was sent last of each
	same := equalButUsage
	for {
		gone := sent
		sent = map[string]*codeserverpb.Location{}
		for _, m := range s.server.messagesOf(req.GetLocation(), measureEvery) {
			name := m.GetName()
			last, known := gone[name]
			delete(gone, name)
			if known && same(last, m) {
				sent[name] = last
				continue
			}
			sent[name] = m
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		for name := range gone {
			if err := stream.Send(&codeserverpb.Location{Name: name}); err != nil {
				return err
			}
		}
		select {
		case <-changes:
			same = equalButUsage
		case <-ticks:
			same = equalUsage
		case <-stream.Context().Done():
			return nil
		case <-s.server.ctx.Done():
			return toStatus(errEnding)
		}
	}
}

// equalUsage reports whether two messages differ in nothing but the time at which they were measured.
func equalUsage(a, b *codeserverpb.Location) bool {
	return equalWithout(a, b, func(v *codeserverpb.Version) {
		if v.GetUsage() != nil {
			v.Usage.MeasuredAt = nil
		}
	})
}

// equalButUsage reports whether two messages differ in nothing but what is used, restarts aside.
func equalButUsage(a, b *codeserverpb.Location) bool {
	return equalWithout(a, b, func(v *codeserverpb.Version) {
		v.Usage = &codeserverpb.Usage{Restarts: v.GetUsage().GetRestarts()}
	})
}

func equalWithout(a, b *codeserverpb.Location, change func(*codeserverpb.Version)) bool {
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	for _, l := range []*codeserverpb.Location{a, b} {
		for _, v := range l.GetVersions() {
			change(v)
		}
	}
	return proto.Equal(a, b)
}

// watch returns a channel that is sent to when something has changed.
func (s *Server) watch() (changes <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.watchers[c] = true
	s.mu.Unlock()
	return c, func() {
		s.mu.Lock()
		delete(s.watchers, c)
		s.mu.Unlock()
	}
}

// changed tells those who watch.
func (s *Server) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
