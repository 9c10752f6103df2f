package codeserver

import (
	"context"
	"errors"
	"fmt"
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

// deploy makes a version the current one. On an error the location serves what it served before.
func (s *Server) deploy(ctx context.Context, req *codeserverpb.DeployRequest, r report) (*codeserverpb.Deployed, error) {
	if err := checkDeploy(req); err != nil {
		return nil, err
	}
	v, err := newVersion(req.GetSpec())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	l, err := s.location(req.GetLocation(), req.GetListen())
	if err != nil {
		return nil, err
	}
	release, err := s.take(ctx, l)
	if err != nil {
		return nil, err
	}
	defer release()
	if listen := req.GetListen(); listen != "" && listen != l.address {
		if err := s.listen(l, listen); err != nil {
			return nil, err
		}
	}
	return s.activate(ctx, l, v, req.GetReadyTimeout(), r)
}

// location returns the location of that name, a new one if there is none yet.
func (s *Server) location(name, listen string) (*location, error) {
	s.mu.Lock()
	l, ok := s.locations[name]
	s.mu.Unlock()
	if ok {
		return l, nil
	}
	l = newLocation(name)
	if err := s.listen(l, listen); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.locations[name]; ok {
		return other, l.proxy.Close()
	}
	s.locations[name] = l
	return l, nil
}

// rollback makes a kept version the current one again.
func (s *Server) rollback(ctx context.Context, req *codeserverpb.RollbackRequest, r report) (*codeserverpb.Deployed, error) {
	s.mu.Lock()
	l, ok := s.locations[req.GetLocation()]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%w: no location %q", errNotFound, req.GetLocation())
	}
	release, err := s.take(ctx, l)
	if err != nil {
		return nil, err
	}
	defer release()
	s.mu.Lock()
	v := l.previous
	if req.GetVersion() != "" {
		v, err = l.find(req.GetVersion())
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
	return s.activate(ctx, l, again, req.GetReadyTimeout(), r)
}

// defaultReady is how long a version may take to become ready unless the request says.
const defaultReady = time.Minute

// activate starts the version, waits until it is ready and moves the traffic to it.
func (s *Server) activate(ctx context.Context, l *location, v *version, timeout *durationpb.Duration, r report) (*codeserverpb.Deployed, error) {
	if m, ok := s.serves(l, v); ok {
		return &codeserverpb.Deployed{Location: m, Unchanged: true}, nil
	}
	s.mu.Lock()
	l.loading = append(l.loading, v)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		l.loading = slices.DeleteFunc(l.loading, func(x *version) bool { return x == v })
		s.mu.Unlock()
	}()
	wait := timeout.AsDuration()
	if timeout == nil || wait <= 0 {
		wait = defaultReady
	}
	run, err := s.start(ctx, l, v, wait, r)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := s.switchTo(l, v, run); err != nil {
		run.worker.Stop(context.Background())
		return nil, errors.Join(err, run.backend.Close())
	}
	r.stage("switch", begin, loader.Stats{})
	s.mu.Lock()
	m := l.message()
	s.mu.Unlock()
	s.tasks.Go(func() {
		if err := s.retain(); err != nil && s.ctx.Err() == nil {
			s.opts.Log.Warn("retention", "error", err)
		}
	})
	return &codeserverpb.Deployed{Location: m}, nil
}

// serves reports whether the version is the current one and up.
func (s *Server) serves(l *location, v *version) (*codeserverpb.Location, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := l.current
	return l.message(), c != nil && c.name == v.name && c.running != nil && c.state == codeserverpb.State_READY
}

// switchTo moves the location to a version that is ready. State is on disk before traffic moves: a restart in between
// starts the new version, which has shown that it can.
func (s *Server) switchTo(l *location, v *version, run *running) error {
	s.mu.Lock()
	old, oldPrevious, versions := l.current, l.previous, l.versions
	same := old != nil && old.name == v.name
	if old != nil && !same {
		l.previous = old
	}
	l.versions = append([]*version{v}, slices.DeleteFunc(slices.Clone(versions), func(x *version) bool {
		return x.name == v.name && x.running == nil
	})...)
	if l.previous != nil && l.previous.name == v.name {
		l.previous = nil
	}
	l.current = v
	v.running, v.state = run, codeserverpb.State_READY
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.mu.Lock()
		l.current, l.previous, l.versions = old, oldPrevious, versions
		s.mu.Unlock()
		return err
	}
	l.proxy.Point(run.backend)
	s.tasks.Go(func() { s.watchProcess(l, v, run) })
	if old != nil {
		s.retire(l, old)
	}
	s.changed()
	return nil
}

// retire lets a replaced version finish what it began, then ends it.
func (s *Server) retire(l *location, v *version) {
	s.mu.Lock()
	run := v.running
	if run != nil {
		run.stopped = true
		v.state = codeserverpb.State_DRAINING
	}
	s.mu.Unlock()
	if run == nil {
		return
	}
	s.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, s.opts.DrainTimeout)
		defer cancel()
		if err := drain(ctx, v, run); err != nil && s.ctx.Err() == nil {
			s.opts.Log.Warn("a replaced version is ended with requests under way", "location", l.name, "version", v.name)
		}
		run.worker.Stop(context.Background())
		_ = run.backend.Close()
		s.mu.Lock()
		v.running, v.state = nil, codeserverpb.State_STOPPED
		s.mu.Unlock()
		v.log.close()
		s.changed()
	})
}
