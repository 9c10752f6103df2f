package codeserver

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pexpress/pexpress/cache/digest"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/proxy"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// location is a stable address and its versions. Server.mu guards the fields that change.
type location struct {
	name     string
	turn     chan struct{} // holds a token while a deploy, or a start by the server itself, is under way
	resuming bool          // it is the server's own
	proxy    *proxy.Switch
	listener net.Listener
	address  string // host:port
	current  *version
	previous *version
	versions []*version // newest first
	loading  []*version // being deployed, not yet among versions
}

// version is what a VersionSpec makes, and its process while it has one.
type version struct {
	name     string // digest of the spec
	spec     *codeserverpb.VersionSpec
	deps     digest.Digest
	source   digest.Digest
	deployed time.Time
	state    codeserverpb.State
	err      string
	log      *logbook
	running  *running
}

// running is a version's process and the way to it.
type running struct {
	worker  *worker.Worker
	backend *proxy.Backend
	stopped bool // it was asked to end
}

// newVersion returns a version that has not been started.
func newVersion(spec *codeserverpb.VersionSpec) (*version, error) {
	_, name, err := digest.Marshal(spec)
	if err != nil {
		return nil, err
	}
	deps, err := digest.FromProto(spec.GetDepsRoot())
	if err != nil {
		return nil, fmt.Errorf("deps_root: %w", err)
	}
	source, err := digest.FromProto(spec.GetSourceRoot())
	if err != nil {
		return nil, fmt.Errorf("source_root: %w", err)
	}
	return &version{
		name: name.Hash(), spec: spec, deps: deps, source: source, deployed: time.Now(),
		state: codeserverpb.State_STOPPED,
	}, nil
}

// dropOld forgets the oldest versions beyond keep, never one that serves, was served before or has a process.
func (l *location) dropOld(keep int) []*version {
	var kept, dropped []*version
	for i, v := range l.versions {
		if i < keep || v == l.current || v == l.previous || v.running != nil {
			kept = append(kept, v)
		} else {
			dropped = append(dropped, v)
		}
	}
	l.versions = kept
	return dropped
}

// newLocation returns a location that serves nothing yet.
func newLocation(name string) *location { return &location{name: name, turn: make(chan struct{}, 1)} }

// take waits for the location's turn. A deploy that meets another is refused, since one of them would undo the other's
// work unseen; one that meets the server's own start after a restart or a crash waits for it.
func (s *Server) take(ctx context.Context, l *location) (release func(), err error) {
	for {
		select {
		case l.turn <- struct{}{}:
			return func() { <-l.turn }, nil
		default:
		}
		s.mu.Lock()
		wait := l.resuming
		s.mu.Unlock()
		if !wait {
			return nil, fmt.Errorf("%w: another deploy of %s is under way", errAborted, l.name)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// takeOwn waits for the turn on the server's behalf.
func (s *Server) takeOwn(l *location) (release func()) {
	l.turn <- struct{}{}
	set := func(v bool) {
		s.mu.Lock()
		l.resuming = v
		s.mu.Unlock()
	}
	set(true)
	return func() {
		set(false)
		<-l.turn
	}
}

// find returns the kept version with that name, or the only one that begins so.
func (l *location) find(prefix string) (*version, error) {
	var found *version
	for _, v := range l.versions {
		if v.name == prefix {
			return v, nil
		}
		if len(prefix) > 0 && len(prefix) <= len(v.name) && v.name[:len(prefix)] == prefix {
			if found != nil {
				return nil, fmt.Errorf("%w: %s is the beginning of several versions of %s", errRequest, prefix, l.name)
			}
			found = v
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: location %s has no version %s; pexpress status shows those that are kept", errNotFound, l.name, prefix)
	}
	return found, nil
}

// message returns the location as the API shows it.
func (l *location) message() *codeserverpb.Location {
	m := &codeserverpb.Location{Name: l.name, Address: l.address}
	if l.current != nil {
		m.Current = l.current.name
	}
	for _, v := range l.versions {
		vm := &codeserverpb.Version{
			Name: v.name, Spec: v.spec, State: v.state, DeployedAt: timestamppb.New(v.deployed), Error: v.err,
		}
		if v.running != nil {
			vm.Pid = int64(v.running.worker.PID())
		}
		m.Versions = append(m.Versions, vm)
	}
	return m
}

// listen makes the location answer on an address; "" is a free port of the loopback interface.
func (s *Server) listen(l *location, address string) error {
	if address == "" {
		address = "127.0.0.1:0"
	}
	if err := s.checkAddress(address); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%w: location %s cannot listen on %s: %w; choose another address with --listen", errRefused, l.name, address, err)
	}
	if l.proxy == nil {
		l.proxy = proxy.New(func(format string, args ...any) {
			s.opts.Log.Debug("proxy", "location", l.name, "message", fmt.Sprintf(format, args...))
		})
	}
	s.mu.Lock()
	old := l.listener
	l.listener, l.address = listener, listener.Addr().String()
	s.mu.Unlock()
	s.tasks.Go(func() {
		if err := l.proxy.Serve(listener); err != nil {
			s.opts.Log.Error("location no longer listens", "location", l.name, "error", err)
		}
	})
	if old != nil {
		return old.Close()
	}
	return nil
}

// checkAddress refuses to listen where other machines can reach it, unless that was allowed.
func (s *Server) checkAddress(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%w: listen address %q is not host:port: %w", errRequest, address, err)
	}
	ip := net.ParseIP(host)
	if host == "localhost" || ip != nil && ip.IsLoopback() || s.opts.AllowRemote {
		return nil
	}
	return fmt.Errorf("%w: %s can be reached from other machines, and versions do not ask who calls: use a loopback address, or start the codeserver with --allow-unauthenticated-remote-access",
		errRefused, address)
}

// closeLocation ends the location's address and processes.
func (s *Server) closeLocation(ctx context.Context, l *location) {
	if l.proxy != nil {
		if l.proxy.Shutdown(ctx) != nil {
			_ = l.proxy.Close()
		}
	}
	s.mu.Lock()
	var all []*running
	for _, v := range append(l.versions, l.loading...) {
		if v.running != nil {
			v.running.stopped = true
			all = append(all, v.running)
		}
	}
	s.mu.Unlock()
	for _, r := range all {
		r.worker.Stop(context.Background())
		_ = r.backend.Close()
	}
}
