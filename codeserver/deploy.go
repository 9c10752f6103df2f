package codeserver

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache/traces"
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

// noted reports one step with what there is to say about it.
func (r report) noted(name string, start time.Time, note string) {
	r(&codeserverpb.Stage{Name: name, Took: durationpb.New(time.Since(start)), Note: note})
}

// deployAll makes a version of each of several locations the current one, of all or of none. On an error each serves what
// it served before, where it did.
func (s *Server) deployAll(ctx context.Context, reqs []*codeserverpb.DeployRequest, r report) (_ []*codeserverpb.Deployed, err error) {
	all := make([]*transition, len(reqs))
	for i, req := range reqs {
		if err := checkDeploy(req); err != nil {
			return nil, ofLocation(reqs, req, err)
		}
		v, err := newVersion(req.GetSpec())
		if err != nil {
			return nil, ofLocation(reqs, req, fmt.Errorf("%w: %w", errRequest, err))
		}
		all[i] = &transition{v: v, req: req}
		begin := time.Now()
		if err := s.verify(ctx, req); err != nil {
			return nil, ofLocation(reqs, req, err)
		}
		if s.opts.Verify != nil {
			traces.Record(ctx, "verify", begin, time.Now(), all[i].attributes()...)
		}
	}
	release, err := s.claimAll(ctx, all)
	defer release()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.abandon(all)
			s.keepFailure(all, err)
		}
	}()
	for _, t := range all {
		if err := s.checkCurrent(t.l, t.req.IfCurrent); err != nil {
			return nil, err
		}
		// Opened now, so that a deploy which cannot have its address fails early; answered on when the version is ready.
		if t.listener, err = s.bind(t.l, t.req.GetListen()); err != nil {
			return nil, err
		}
	}
	return s.activate(ctx, all, r)
}

// ofLocation says of which location an error is, where there are several.
func ofLocation(reqs []*codeserverpb.DeployRequest, req *codeserverpb.DeployRequest, err error) error {
	if len(reqs) > 1 {
		return fmt.Errorf("location %.80s: %w", req.GetLocation(), err)
	}
	return err
}

// claimAll takes the turns of all locations, in the order of their names: two calls for the same ones cannot wait for
// each other.
func (s *Server) claimAll(ctx context.Context, all []*transition) (release func(), err error) {
	var releases []func()
	release = func() {
		for _, r := range releases {
			r()
		}
	}
	sorted := slices.SortedFunc(slices.Values(all), func(a, b *transition) int {
		return strings.Compare(a.req.GetLocation(), b.req.GetLocation())
	})
	for _, t := range sorted {
		l, r, err := s.claim(ctx, t.req.GetLocation(), true)
		if err != nil {
			return release, err
		}
		t.l, releases = l, append(releases, r)
	}
	return release, nil
}

// rollback makes a kept version the current one again.
func (s *Server) rollback(ctx context.Context, req *codeserverpb.RollbackRequest, r report) ([]*codeserverpb.Deployed, error) {
	if err := checkTimeout(req.GetReadyTimeout()); err != nil {
		return nil, err
	}
	t := &transition{req: &codeserverpb.DeployRequest{Location: req.GetLocation(), ReadyTimeout: req.GetReadyTimeout(), IfCurrent: req.IfCurrent}}
	return s.serveKept(ctx, t, r, func(l *location) (*version, error) { return l.target(req.GetVersion()) })
}

// restart has another process of the current version take the traffic over.
func (s *Server) restart(ctx context.Context, req *codeserverpb.RestartRequest, r report) ([]*codeserverpb.Deployed, error) {
	if err := checkTimeout(req.GetReadyTimeout()); err != nil {
		return nil, err
	}
	if err := checkCanary(req.GetCanary()); err != nil {
		return nil, err
	}
	t := &transition{again: true, req: &codeserverpb.DeployRequest{
		Location: req.GetLocation(), ReadyTimeout: req.GetReadyTimeout(), IfCurrent: req.IfCurrent, Canary: req.GetCanary(),
	}}
	return s.serveKept(ctx, t, r, func(l *location) (*version, error) {
		if l.current == nil {
			return nil, fmt.Errorf("%w: location %s serves no version", errNotFound, l.name)
		}
		return l.current, nil
	})
}

// serveKept makes a transition to a version that its location has already, which choose returns: it was trusted when it was
// deployed, and its trees are on this host.
func (s *Server) serveKept(ctx context.Context, t *transition, r report, choose func(*location) (*version, error)) ([]*codeserverpb.Deployed, error) {
	l, release, err := s.claim(ctx, t.req.GetLocation(), false)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.checkCurrent(l, t.req.IfCurrent); err != nil {
		return nil, err
	}
	s.mu.Lock()
	v, err := choose(l)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if t.v, err = newVersion(v.spec); err != nil {
		return nil, err
	}
	t.l = l
	all := []*transition{t}
	done, err := s.activate(ctx, all, r)
	if err != nil {
		s.abandon(all)
		if t.again && ctx.Err() == nil && s.serves(l, t.v) {
			err = fmt.Errorf("%s is served by the process before: %w", l.name, err)
		}
		s.keepFailure(all, err)
		return nil, err
	}
	return done, nil
}

// target returns the version that a rollback goes to: the one that is named, else the last one before that has not failed.
// Server.mu is held.
func (l *location) target(name string) (*version, error) {
	if name != "" {
		return l.find(l.versions, name)
	}
	if l.previous != nil {
		return l.previous, nil
	}
	but := ""
	if i := slices.IndexFunc(l.versions, l.hasFailed); i >= 0 {
		but = fmt.Sprintf(" but %.12s, which failed", l.versions[i].name)
	}
	if slices.ContainsFunc(l.versions, l.isOther) { // it has left what failed
		return nil, fmt.Errorf("%w: %s has no version that it goes back to by itself%s: name one that `pexpress status %s` lists, as in `pexpress rollback %s VERSION`",
			errRefused, l.name, but, l.name, l.name)
	}
	if but != "" {
		but += fmt.Sprintf(": `pexpress status %s` says why, and `pexpress rollback %s VERSION` goes back to it all the same", l.name, l.name)
	}
	return nil, fmt.Errorf("%w: %s served no other version before%s", errRefused, l.name, but)
}

// hasFailed reports whether a version is none to go back to, and not the one that serves.
func (l *location) hasFailed(v *version) bool {
	return v.failed != "" && (l.current == nil || v.name != l.current.name)
}

// isOther reports whether a version is neither the one that serves nor one that has failed.
func (l *location) isOther(v *version) bool {
	return v.failed == "" && (l.current == nil || v.name != l.current.name)
}

// defaultReady is how long a version may take to become ready unless the request says.
const defaultReady = time.Minute

// activate has all versions ready, tries one that is to be tried, and moves the traffic to them. The caller has the turns,
// and abandons what an error leaves.
func (s *Server) activate(ctx context.Context, all []*transition, r report) ([]*codeserverpb.Deployed, error) {
	defer s.retainSoon()
	starts, starting := errgroup.WithContext(ctx)
	starts.SetLimit(max(2, runtime.NumCPU()))
	reports := make([]report, len(all))
	var mu sync.Mutex // a report is of one step at a time
	for i, t := range all {
		kept := s.keepStages(t.v, func(st *codeserverpb.Stage) {
			mu.Lock()
			defer mu.Unlock()
			r(st)
		})
		reports[i] = traced(ctx, t, func(st *codeserverpb.Stage) {
			if len(all) > 1 {
				st.Location = t.l.name // before others see it
			}
			kept(st)
		})
		starts.Go(func() error {
			err := s.bring(starting, t, reports[i])
			if err != nil && len(all) > 1 {
				err = fmt.Errorf("location %s: %w", t.l.name, err)
			}
			return err
		})
	}
	if err := starts.Wait(); err != nil {
		return nil, err
	}
	for _, t := range all {
		traceFirst(ctx, t)
	}
	if t := all[0]; t.req.GetCanary() != nil && t.run != nil {
		if err := s.try(ctx, t, reports[0]); err != nil {
			return nil, err
		}
	}
	begin := time.Now()
	if err := s.switchAll(all); err != nil {
		return nil, err
	}
	s.keepFailure(all, nil)
	done := make([]*codeserverpb.Deployed, len(all))
	for i, t := range all {
		if t.run != nil {
			reports[i].stage("switch", begin, loader.Stats{})
		}
		l := s.message(t.l)
		done[i] = &codeserverpb.Deployed{
			Location: l, Unchanged: t.run == nil, Moved: t.address != "" && t.address != l.GetAddress(),
		}
	}
	return done, nil
}

// bring has a transition's version ready: it serves already, is warm still, or is started. Another process of the current
// version is started in any case.
func (s *Server) bring(ctx context.Context, t *transition, r report) error {
	if !t.again && s.serves(t.l, t.v) {
		return nil
	}
	wait := t.req.GetReadyTimeout().AsDuration()
	if t.req.GetReadyTimeout() == nil {
		wait = defaultReady
	}
	if !t.again && s.revive(ctx, t, r) {
		return nil
	}
	s.announce(t.l, t.v)
	run, err := s.start(ctx, t.l, t.v, wait, r)
	if err != nil {
		s.unannounce(t.l, t.v)
		return err
	}
	t.run = run
	return nil
}

// announce shows a version as being deployed, which keeps its trees from retention, until unannounce, or until it is one
// of the location's versions.
func (s *Server) announce(l *location, v *version) {
	s.tidy.RLock() // a retention that runs now has not seen the version
	s.mu.Lock()
	v.state = codeserverpb.State_STARTING
	l.loading = append(slices.Clone(l.loading), v)
	s.mu.Unlock()
	s.tidy.RUnlock()
	s.changed()
}

func (s *Server) unannounce(l *location, v *version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(l.loading, v) {
		s.remember(l, v)
	}
	l.loading = without(l.loading, v)
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
