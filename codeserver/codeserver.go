// Package codeserver serves versions of Python projects by the digests of their trees.
//
// A location has a stable address and versions, of which one is current. A version is a deps tree, a source tree and
// what to run; it never changes. Deploying loads it from the cache, starts its process beside the current one, and moves
// traffic when it is ready; what was begun on the old version ends there. All that a restart needs is in the state
// directory, so that the host serves what it served before also when the cache cannot be reached.
//
//	state.json    locations and their versions
//	store/        blobs, and source trees as directories (package loader)
//	python/       unpacked wheels and virtual environments (package venv)
//	homes/        what versions find in their home directory, one a location
//	logs/         what versions wrote, a file each
//	run/          sockets of the versions' shims
//	lock          held by the one codeserver that uses the directory
package codeserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/codeserver/bytecode"
	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/loader"
	"github.com/pexpress/pexpress/codeserver/secrets"
	"github.com/pexpress/pexpress/codeserver/sockets"
	"github.com/pexpress/pexpress/codeserver/venv"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

// Options say how a codeserver works.
type Options struct {
	// State is the directory that keeps all. It is made if it is not there.
	State string
	// Open opens the cache.
	Open loader.Open
	// Keep is how many versions of a location are kept, the current one included, and those that have failed not; 5 if 0.
	Keep int
	// DrainTimeout is how long a replaced version may finish what it began; an hour if 0.
	DrainTimeout time.Duration
	// KeepWarm is how long the process of the version before goes on after a switch, so that a rollback needs no start; not
	// at all if 0.
	KeepWarm time.Duration
	// StopGrace is how long a process has between SIGTERM and SIGKILL; 10 s if 0.
	StopGrace time.Duration
	// AdoptWithin is how long versions go on when the codeserver is gone: the next one on the same state directory takes
	// them over within this time. They end with it if 0.
	AdoptWithin time.Duration
	// Sockets keeps the locations' addresses open between Leave and the next codeserver; it may be nil.
	Sockets *sockets.Set
	// AllowRemote lets locations listen on addresses that other machines reach. Whoever reaches them is not asked who
	// they are.
	AllowRemote bool
	// Verify says which deploys are trusted; all if nil.
	Verify Verify
	// Secrets is the operator's file that says where the secrets of locations are; see package secrets. None if empty.
	Secrets string
	// Users are those that versions run as; see ParseUsers. Hidden are directories that versions with one do not see.
	Users  Users
	Hidden []string
	// Channels are followed.
	Channels Channels
	// OpenResults opens the cache with its ActionCache, by which hosts tell each other what versions import; they do not if nil.
	OpenResults func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error)
	// BytecodeKey is that of the hosts that share the bytecode of wheels by OpenResults; each makes its own if nil.
	BytecodeKey *bytecode.Key
	health      healthTimes      // tests have less patience
	now         func() time.Time // and clocks that are wrong
	Log         *slog.Logger
}

// Server is a codeserver.
type Server struct {
	opts    Options
	lock    *os.File
	loader  *loader.Loader
	venvs   *venv.Store
	pythons interpreters
	zygotes *zygote.Pool
	limits  *limits.Host
	expect  expectation // of deploys
	ports   ports
	fleet   *bytecode.Share // nil if bytecode is not shared
	fills   chan struct{}   // one makes bytecode at a time
	metrics *metrics
	cuts    atomic.Int64    // of logs; see logbook.follow
	ctx     context.Context //nolint:containedctx // ends with the server; what runs in the background runs in it
	cancel  context.CancelFunc
	flows   context.Context //nolint:containedctx // ends when requests under way have had their time to end
	endAll  context.CancelFunc
	tasks   sync.WaitGroup // what runs in the background
	calls   sync.WaitGroup // deploys that clients have asked for

	tidy     sync.RWMutex // held by retention, and for a moment by a deploy that begins
	tidySoon atomic.Bool

	// Locks are taken in this order: a location's turn, tidy, saving or giving, mu. Nothing waits while it holds mu.
	saving sync.Mutex // one write of the state at a time
	giving sync.Mutex // one user is given at a time

	mu        sync.Mutex // guards all below, and the fields of locations and versions
	closed    bool
	locations map[string]*location
	leaving   []*location // removed, with requests under way perhaps
	unserved  []*version  // came to nothing, newest first; their logs are kept
	watchers  map[chan struct{}]bool
	followed  map[string]followed // by location
	lastUser  int
}

// Open opens the state directory and starts what it served last. It returns when every location listens whose address
// is free; their versions may still be starting.
func Open(opts Options) (*Server, error) {
	defaults(&opts)
	dir, err := filepath.Abs(opts.State)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(dir, ":\n") {
		return nil, fmt.Errorf("the state directory %q has a character in its name that cannot stand in PYTHONPATH", dir)
	}
	opts.State = dir
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	s := &Server{opts: opts, locations: map[string]*location{}, watchers: map[chan struct{}]bool{}, followed: map[string]followed{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.flows, s.endAll = context.WithCancel(context.Background())
	s.metrics = newMetrics(s)
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.close(context.Background(), true)) // the next try may be a better one
	}
	return s, nil
}

func defaults(o *Options) {
	if o.Keep == 0 {
		o.Keep = 5
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = time.Hour
	}
	if o.StopGrace == 0 {
		o.StopGrace = 10 * time.Second
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.health == (healthTimes{}) {
		o.health = defaultHealth
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func (s *Server) open() error {
	var err error
	if s.lock, err = lockState(s.opts.State, lockWait); err != nil {
		return err
	}
	// State is read first: nothing is touched beside a state that cannot be read.
	if err := s.restore(); err != nil {
		return err
	}
	if s.opts.Secrets != "" {
		if _, err := secrets.Read(s.opts.Secrets); err != nil {
			return err
		}
	}
	if s.loader, err = loader.New(filepath.Join(s.opts.State, "store"), s.opts.Open); err != nil {
		return err
	}
	if s.venvs, err = venv.Open(filepath.Join(s.opts.State, "python")); err != nil {
		return err
	}
	if s.venvs.Left != nil {
		s.opts.Log.Warn("something is left of environments, and cannot be removed", "error", s.venvs.Left)
	}
	s.openBytecode()
	if s.zygotes, err = s.openPool(); err != nil {
		return err
	}
	for _, l := range s.all() {
		if err := s.checkAddress(l.address); err != nil {
			return fmt.Errorf("location %s: %w", l.name, err)
		}
	}
	s.limits = limits.Open(s.opts.State, s.opts.Log)
	s.expect = s.limits.Hurry
	s.tasks.Go(func() { s.limits.Balance(s.ctx) })
	s.adoptAll(s.findOrphans())
	for _, l := range s.all() {
		if err := s.tryListen(l); err != nil {
			s.opts.Log.Error("a location does not listen, and is tried again", "location", l.name, "error", err)
			s.tasks.Go(func() { s.listenLater(l) })
		}
		if !s.goesOn(l) {
			s.tasks.Go(func() { s.resume(l, l.current, 0) })
		}
	}
	s.retainSoon()
	return s.followChannels()
}

// errInUse says that another codeserver has the lock.
var errInUse = errors.New("another codeserver uses")

// lockWait is how long the lock may be another process's. One that is being started has a copy of all that this process has
// open, for the moment until it runs its program; so has one of a codeserver that has just ended.
const lockWait = time.Second

func lockState(dir string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w %s", errInUse, dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the state directory: %w", err), f.Close())
	}
	// For Stop. Always of one length, so that a full disk takes it.
	_, _ = fmt.Fprintf(f, "%-20d\n", os.Getpid())
	return f, nil
}

// Check returns when the server's state can be read: never, if something is stuck.
func (s *Server) Check() { s.all() }

// all returns the locations, sorted by name.
func (s *Server) all() []*location {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*location
	for _, l := range s.locations {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *location) int { return strings.Compare(a.name, b.name) })
	return all
}
