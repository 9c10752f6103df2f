package codeserver

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/dagster"
	"github.com/pexpress/pexpress/codeserver/limits"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/proxy"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// location is a stable address and its versions. Server.mu guards the fields that change.
type location struct {
	name     string
	proxy    *proxy.Switch
	turn     *turn // who changes what the location runs; nil is nobody
	listener net.Listener
	address  string // host:port
	deaf     string // why it does not listen there
	current  *version
	previous *version
	versions []*version     // newest first
	loading  []*version     // being deployed, not yet among versions
	user     int            // of its versions; 0 while there is none
	removed  bool           // by Remove: it comes back only as another one of that name
	remarked map[string]any // limits that are more than the host has, by name, as they were when the log said so

	stats *proxy.Stats  // of all versions that it has had
	past  time.Duration // processor time of processes that have ended
	done  done
	lost  logLost

	canary        *version // among loading: it is tried beside the current one
	canaryPercent int

	failure *codeserverpb.Failure // of the last deploy, rollback or restart; nil if it did not fail
}

// done counts what has happened to a location since the codeserver's start.
type done struct {
	switches, restarts, replaced, fallbacks int64
	deploys                                 map[string]int64 // by outcome
}

// version is what a VersionSpec makes, and its process while it has one.
type version struct {
	name     string // digest of the spec
	spec     *codeserverpb.VersionSpec
	deps     digest.Digest
	source   digest.Digest
	outputs  map[string]digest.Digest // further trees, by name
	deployed time.Time
	state    codeserverpb.State
	err      string
	log      *logbook
	running  *running
	pause    time.Duration // before it is started again
	switched time.Time     // when traffic was moved to it
	ends     int           // how often it has ended by itself, not come up, or hung, since then
	ended    string        // why, the last time
	endedAt  time.Time     // when that was
	failed   string        // why it is not one to go back to: the location has fallen back from it, or left it while it kept ending
	blemish  string        // why it had failed, until somebody has had it serve again all the same
	stages   []*codeserverpb.Stage
	forked   bool
	stats    *proxy.Stats
	restarts int64

	location *location // nil until it is started
	spent    *spent
}

// spent is what the processes of a version have used that have ended. It is shared with the version that takes the place
// of one that hangs.
type spent struct {
	cpu  time.Duration
	peak int64 // the most memory that one of them had
}

// running is a version's process and the way to it.
type running struct {
	worker  *worker.Worker
	backend *proxy.Backend
	port    int
	stopped bool        // it was asked to end
	retired *retirement // nil while nothing has replaced it
	unwatch func()      // ends the probes; nil before the first
	hung    bool        // it does not answer: the requests that it has begun will not end
	since   time.Time

	group     *limits.Group
	isolation []string // what it says
	usage     limits.Usage
	measured  time.Time // when usage was read
	counted   bool      // it has ended, and is in its version's past

	record record // what the next codeserver is told
}

// newRunning returns a process of a version that was started, or taken over.
func (s *Server) newRunning(w *worker.Worker, v *version, g *limits.Group, r record) *running {
	run := &running{
		worker: w, backend: proxy.NewMeasured(fmt.Sprintf("127.0.0.1:%d", r.Port), v.stats), port: r.Port, since: r.Since,
		group: g, isolation: r.Isolation, record: r,
	}
	s.tasks.Go(func() { s.account(v, run) })
	return run
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
	v := &version{
		name: name.Hash(), spec: spec, deps: deps, source: source, deployed: time.Now(),
		outputs: map[string]digest.Digest{}, state: codeserverpb.State_STOPPED, stats: new(proxy.Stats), spent: new(spent),
	}
	for name, root := range spec.GetOutputs() {
		if v.outputs[name], err = digest.FromProto(root); err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
	}
	return v, nil
}

// newLocation returns a location that serves nothing and listens nowhere yet.
func (s *Server) newLocation(name string) *location {
	l := &location{name: name, stats: new(proxy.Stats), remarked: map[string]any{}, proxy: proxy.New(func(format string, args ...any) {
		s.opts.Log.Debug("proxy", "location", name, "message", fmt.Sprintf(format, args...))
	})}
	dagster.Route(l.proxy, func() bool { return s.runsDagster(l) }, s.opts.Log.With("location", name))
	return l
}

// known returns all versions, newest first: those that are being deployed and those that are kept.
func (l *location) known() []*version { return slices.Concat(l.loading, l.versions) }

// shown returns all versions as the API shows them: newest first, but the current one before any other of its name, as there is
// when it is started again. Who looks for the current one by its name finds it.
func (l *location) shown() []*version {
	all := l.known()
	now := slices.Index(all, l.current)
	if now < 0 {
		return all
	}
	first := slices.IndexFunc(all, func(v *version) bool { return v.name == l.current.name })
	return slices.Insert(slices.Delete(all, now, now+1), first, l.current)
}

// keepFailed is how many versions of a location are kept that have failed.
const keepFailed = 2

// dropOld forgets the oldest versions beyond keep, never one that serves, was served before or has a process. Those that have
// failed are counted by themselves: a series of bad deploys must not push out what one could go back to. Of several
// with one name, as when a version is deployed again while it still drains, all but the newest go when they have ended.
func (l *location) dropOld(keep int) {
	var kept []*version
	names := map[string]bool{}
	left, leftFailed := keep, keepFailed
	for _, v := range l.versions {
		room := &left
		if l.hasFailed(v) {
			room = &leftFailed
		}
		twin := names[v.name]
		if v.running == nil && (twin || *room <= 0 && v != l.current && v != l.previous) {
			continue
		}
		kept = append(kept, v)
		if !twin {
			names[v.name] = true
			*room--
		}
	}
	l.versions = kept
}

// find returns the newest of some versions that has that name, or the only one whose name begins so.
func (l *location) find(versions []*version, prefix string) (*version, error) {
	var found *version
	for _, v := range versions {
		if v.name == prefix {
			return v, nil
		}
		if prefix == "" || !strings.HasPrefix(v.name, prefix) {
			continue
		}
		if found != nil && found.name != v.name {
			return nil, fmt.Errorf("%w: %s is the beginning of several versions of %s; write more of it", errRequest, prefix, l.name)
		}
		if found == nil {
			found = v
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: location %s has no version %.80q; pexpress status shows those that are kept", errNotFound, l.name, prefix)
	}
	return found, nil
}

// message returns the location as the API shows it.
func (l *location) message() *codeserverpb.Location {
	m := &codeserverpb.Location{Name: l.name, Address: l.address, ListenError: l.deaf}
	if l.current != nil {
		m.Current = l.current.name
	}
	if l.canary != nil {
		m.Canary, m.CanaryPercent = l.canary.name, int32(l.canaryPercent)
	}
	if l.previous != nil {
		m.Previous = l.previous.name
	}
	m.Failure = l.failure
	for _, v := range l.shown() {
		vm := &codeserverpb.Version{
			Name: v.name, Spec: v.spec, State: v.state, DeployedAt: timestamppb.New(v.deployed), Error: v.err,
			Usage: v.usage(), Stages: v.stages, Forked: v.forked,
		}
		if v.ended != "" {
			vm.LastEnding = &codeserverpb.Ending{Time: timestamppb.New(v.endedAt), Reason: firstLine(v.ended)}
		}
		if v.running != nil {
			vm.Pid, vm.Isolation = int64(v.running.worker.PID()), v.running.isolation
		}
		m.Versions = append(m.Versions, vm)
	}
	return m
}

// stopVersions ends the processes of a location, or leaves them to the next codeserver.
func (s *Server) stopVersions(l *location, leave bool) {
	s.mu.Lock()
	var all []*version
	for _, v := range l.known() {
		if v.running != nil {
			v.running.stopped = true
			all = append(all, v)
		}
	}
	runs, logs := make([]*running, len(all)), make([]*logbook, len(all))
	for i, v := range all {
		runs[i], logs[i] = v.running, v.log
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for i, r := range runs {
		wg.Go(func() {
			if leave {
				r.worker.Leave()
			} else {
				r.worker.Stop(context.Background())
			}
			_ = r.backend.Close()
			logs[i].close()
		})
	}
	wg.Wait()
}
