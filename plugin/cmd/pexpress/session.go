package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/cache/open"
	"github.com/pexpress/pexpress/plugin/build"
	"github.com/pexpress/pexpress/plugin/fetch"
	"github.com/pexpress/pexpress/plugin/project"
)

// session is what the commands that plan and build share: the project, the cache, and the parts that fill it.
type session struct {
	app      *app
	project  *project.Project
	seen     *build.Seen
	cas      *build.Counter
	results  cache.ActionCache
	fetcher  *fetch.Fetcher
	hasher   *merkle.Hasher
	builders *builders
	runtime  *merkle.Tree   // see bootstrap
	several  bool           // more than one location is built: lines say which they are about
	later    sync.WaitGroup // what has changed is found out and told while others work
	closer   io.Closer
}

// stateDir holds what pexpress remembers between runs and can rebuild: hashes of unchanged files, sizes of wheels,
// the last plans, tools.
func (a *app) stateDir() string { return filepath.Join(a.home, "state") }

func (a *app) openSession(ctx context.Context) (*session, error) {
	p, err := project.Load(a.dir)
	if err != nil {
		return nil, inputError{err}
	}
	for _, w := range p.Warnings {
		a.ui.warn(w)
	}
	a.useCacheOf(p)
	cas, results, closer, err := open.Open(ctx, a.cache)
	if err != nil {
		return nil, unavailableError{cacheError{fmt.Errorf("open the cache %s: %w", a.cache, err)}}
	}
	seen := build.Remember(cas)
	s := &session{app: a, project: p, seen: seen, cas: build.Count(seen), results: complete.New(seen, results), closer: closer}
	if err := s.openState(); err != nil {
		return nil, errors.Join(err, closer.Close())
	}
	return s, nil
}

// useCacheOf takes the project's cache unless the user has chosen one for this command. A relative directory is one of
// the project's.
func (a *app) useCacheOf(p *project.Project) {
	if p.Cache == "" || a.cacheChosen {
		return
	}
	a.cache = p.Cache
	if dir, ok := open.Dir(p.Cache); ok && !filepath.IsAbs(dir) {
		a.cache = filepath.Join(p.Dir, dir)
	}
}

// findCache takes the cache of the project, if there is one.
func (a *app) findCache() error {
	if a.cacheChosen {
		return nil
	}
	p, err := project.Load(a.dir)
	if err != nil {
		return inputError{err} // it may name another cache
	}
	a.useCacheOf(p)
	return nil
}

// openCache opens the project's cache unless the user has chosen one for this command; there need not be a project.
func (a *app) openCache(ctx context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
	if err := a.findCache(); err != nil {
		return nil, nil, nil, err
	}
	cas, results, closer, err := open.Open(ctx, a.cache)
	if err != nil {
		return nil, nil, nil, unavailableError{cacheError{fmt.Errorf("open the cache %s: %w", a.cache, err)}}
	}
	return cas, results, closer, nil
}

func (s *session) openState() error {
	state := s.app.stateDir()
	if err := os.MkdirAll(state, 0o700); err != nil {
		return unavailableError{fmt.Errorf("make the state directory: %w; set PEXPRESS_HOME to a directory that can be written", err)}
	}
	if err := durable.TagCache(s.app.home); err != nil {
		return unavailableError{err}
	}
	var err error
	if s.hasher, err = merkle.NewHasher(filepath.Join(state, "index")); err != nil {
		return err
	}
	s.fetcher, err = fetch.New(s.cas, fetch.Options{StateDir: state, Progress: s.app.progress})
	if err != nil {
		return inputError{err}
	}
	s.builders = &builders{ui: s.app.ui}
	// Where a file has changed there will be something to build: the builder starts while the rest is planned.
	s.hasher.Changed = s.builders.expect
	return nil
}

func (s *session) close() error {
	s.later.Wait()
	return errors.Join(s.builders.close(), s.hasher.Save(), s.closer.Close())
}

// executor returns what runs this session's plans.
func (s *session) executor() *build.Executor {
	return &build.Executor{CAS: s.cas, ActionCache: s.results, Builders: s.builders}
}

// with opens a session for fn and closes it after.
func (a *app) with(ctx context.Context, fn func(*session) error) error {
	s, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	err = fn(s)
	return errors.Join(err, s.close())
}

// of says which location a line is about, where there are several.
func (s *session) of(loc *project.Location) string {
	if !s.several {
		return ""
	}
	return "  " + loc.Name
}

// stage reports a step of a command that has ended.
func (s *session) stage(name string, start time.Time, v map[string]any, text string, args ...any) {
	d := time.Since(start)
	v["stage"], v["milliseconds"] = name, milliseconds(d)
	s.app.ui.event("stage", v, "%-14s %9s  %s", name, took(d), fmt.Sprintf(text, args...))
}
