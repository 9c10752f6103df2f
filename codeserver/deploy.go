package codeserver

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/codeserver/loader"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// report tells whoever deploys that a step has ended.
type report func(*codeserverpb.Stage)

// stage reports one step.
func (r report) stage(name string, start time.Time, st loader.Stats) {
	r(&codeserverpb.Stage{
		Name: name, Took: durationpb.New(time.Since(start)), FetchedBytes: st.Bytes, FetchedBlobs: st.Blobs,
	})
}

// deploy makes a version the current one. On an error the location serves what it served before, where it did.
func (s *Server) deploy(ctx context.Context, req *codeserverpb.DeployRequest, r report) (*codeserverpb.Deployed, error) {
	if err := checkDeploy(req); err != nil {
		return nil, err
	}
	v, err := newVersion(req.GetSpec())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	l, release, err := s.claim(ctx, req.GetLocation(), true)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.checkCurrent(l, req.IfCurrent); err != nil {
		return nil, err
	}
	// Opened now, so that a deploy which cannot have its address fails early; answered on when the version is ready.
	listener, err := s.bind(l, req.GetListen())
	if err != nil {
		return nil, err
	}
	d, err := s.activate(ctx, l, v, listener, req.GetReadyTimeout(), r)
	if err != nil && listener != nil {
		_ = listener.Close()
	}
	return d, err
}

// rollback makes a kept version the current one again.
func (s *Server) rollback(ctx context.Context, req *codeserverpb.RollbackRequest, r report) (*codeserverpb.Deployed, error) {
	if err := checkTimeout(req.GetReadyTimeout()); err != nil {
		return nil, err
	}
	l, release, err := s.claim(ctx, req.GetLocation(), false)
	if err != nil {
		return nil, err
	}
	defer release()
	s.mu.Lock()
	v := l.previous
	if req.GetVersion() != "" {
		v, err = l.find(l.versions, req.GetVersion())
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, fmt.Errorf("%w: %s served no other version before", errRefused, l.name)
	}
	again, err := newVersion(v.spec)
	if err != nil {
		return nil, err
	}
	return s.activate(ctx, l, again, nil, req.GetReadyTimeout(), r)
}

// defaultReady is how long a version may take to become ready unless the request says.
const defaultReady = time.Minute

// activate starts the version, waits until it is ready and moves the traffic to it, and the location to the listener if
// there is one.
func (s *Server) activate(ctx context.Context, l *location, v *version, listener net.Listener,
	timeout *durationpb.Duration, r report,
) (*codeserverpb.Deployed, error) {
	if s.serves(l, v) {
		if err := s.move(l, listener); err != nil {
			return nil, err
		}
		return &codeserverpb.Deployed{Location: s.message(l), Unchanged: true}, nil
	}
	defer s.announce(l, v)()
	defer s.retainSoon()
	wait := timeout.AsDuration()
	if timeout == nil {
		wait = defaultReady
	}
	run, err := s.start(ctx, l, v, wait, r)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := s.switchTo(l, v, run, listener); err != nil {
		s.fail(v, run)
		return nil, err
	}
	r.stage("switch", begin, loader.Stats{})
	return &codeserverpb.Deployed{Location: s.message(l)}, nil
}

// announce shows a version as being deployed, which keeps its trees from retention, until the returned function is
// called.
func (s *Server) announce(l *location, v *version) (done func()) {
	s.tidy.RLock() // one that runs now has not seen the version
	s.mu.Lock()
	v.state = codeserverpb.State_STARTING
	l.loading = append(slices.Clone(l.loading), v)
	s.mu.Unlock()
	s.tidy.RUnlock()
	s.changed()
	return func() { s.unannounce(l, v) }
}

func (s *Server) unannounce(l *location, v *version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.loading = slices.DeleteFunc(slices.Clone(l.loading), func(x *version) bool { return x == v })
}

// serves reports whether the version is the current one and up.
func (s *Server) serves(l *location, v *version) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := l.current
	return c != nil && c.name == v.name && c.running != nil && c.state == codeserverpb.State_READY
}

// message returns a location as the API shows it.
func (s *Server) message(l *location) *codeserverpb.Location {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.message()
}
