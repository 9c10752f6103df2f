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
//	logs/         what versions wrote, a file each
//	lock          held by the one codeserver that uses the directory
package codeserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/loader"
	"github.com/pexpress/pexpress/codeserver/venv"
)

// Options say how a codeserver works.
type Options struct {
	// State is the directory that keeps all. It is made if it is not there.
	State string
	// Open opens the cache.
	Open loader.Open
	// Keep is how many versions of a location are kept, the current one included; 5 if 0.
	Keep int
	// DrainTimeout is how long a replaced version may finish what it began; an hour if 0.
	DrainTimeout time.Duration
	// StopGrace is how long a process has between SIGTERM and SIGKILL; 10 s if 0.
	StopGrace time.Duration
	// AllowRemote lets locations listen on addresses that other machines reach. Whoever reaches them is not asked who
	// they are.
	AllowRemote bool
	Log         *slog.Logger
}

// Server is a codeserver.
type Server struct {
	opts   Options
	lock   *os.File
	loader *loader.Loader
	venvs  *venv.Store
	ctx    context.Context //nolint:containedctx // ends with the server; what runs in the background runs in it
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	tidy   sync.Mutex // one retention at a time

	mu        sync.Mutex // guards all below, and the fields of locations and versions
	locations map[string]*location
	watchers  map[chan struct{}]bool
	saving    sync.Mutex
}

// Open opens the state directory and starts what it served last. It returns when every location listens; their versions
// may still be starting.
func Open(opts Options) (*Server, error) {
	defaults(&opts)
	dir, err := filepath.Abs(opts.State)
	if err != nil {
		return nil, err
	}
	opts.State = dir
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	s := &Server{opts: opts, locations: map[string]*location{}, watchers: map[chan struct{}]bool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close(context.Background()))
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
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func (s *Server) open() error {
	var err error
	if s.lock, err = lockState(s.opts.State); err != nil {
		return err
	}
	if s.loader, err = loader.New(filepath.Join(s.opts.State, "store"), s.opts.Open); err != nil {
		return err
	}
	if s.venvs, err = venv.Open(filepath.Join(s.opts.State, "python")); err != nil {
		return err
	}
	if err := s.restore(); err != nil {
		return err
	}
	for _, l := range s.locations {
		if err := s.listen(l, l.address); err != nil {
			return err
		}
		if l.current != nil {
			s.tasks.Go(func() { s.resume(l) })
		}
	}
	return nil
}

func lockState(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another codeserver uses %s", dir), f.Close())
	}
	return f, nil
}

// Close ends all versions. Requests under way have until ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.cancel()
	var errs []error
	var wg sync.WaitGroup
	for _, l := range s.all() {
		wg.Go(func() { s.closeLocation(ctx, l) })
	}
	wg.Wait()
	s.tasks.Wait()
	if s.loader != nil {
		errs = append(errs, s.loader.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

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

// retain forgets versions that are no longer kept, and what only they needed.
func (s *Server) retain() error {
	s.tidy.Lock()
	defer s.tidy.Unlock()
	s.mu.Lock()
	var deps, trees []digest.Digest
	for _, l := range s.locations {
		for _, v := range l.dropOld(s.opts.Keep) {
			_ = os.Remove(s.logPath(l, v))
		}
		for _, v := range l.versions {
			deps = append(deps, v.deps)
			trees = append(trees, v.deps, v.source)
		}
		for _, v := range l.loading {
			deps = append(deps, v.deps)
			trees = append(trees, v.deps, v.source)
		}
	}
	s.mu.Unlock()
	return errors.Join(s.venvs.Keep(s.ctx, deps), s.loader.Keep(s.ctx, trees))
}
