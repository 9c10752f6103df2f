package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/cache/traces"
	"github.com/pexpress/pexpress/plugin/action"
	"github.com/pexpress/pexpress/plugin/build"
	"github.com/pexpress/pexpress/plugin/fetch"
	"github.com/pexpress/pexpress/plugin/lock"
	"github.com/pexpress/pexpress/plugin/pex"
	"github.com/pexpress/pexpress/plugin/project"
)

// depsPlan is a planned deps.pex with what is needed to bring its inputs.
type depsPlan struct {
	*action.Plan
	wheels  []lock.Wheel
	digests []digest.Digest
	target  lock.Target
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// planDeps computes the Action of deps.pex from the lock. It reads no wheel. runtime returns what bootstrap does.
func (s *session) planDeps(ctx context.Context, loc *project.Location, runtime func() (*merkle.Tree, error)) (*depsPlan, error) {
	l, err := s.readLock(ctx, loc)
	if err != nil {
		return nil, err
	}
	target, err := s.target(loc, l)
	if err != nil {
		return nil, err
	}
	wheels, err := s.selectWheels(loc, l, target)
	if err != nil {
		return nil, inputError{err}
	}
	digests, err := s.fetcher.Resolve(ctx, wheels)
	if err != nil {
		return nil, fetchError(err)
	}
	files := make([]action.File, len(wheels))
	for i, w := range wheels {
		files[i] = action.File{Name: w.Filename, Digest: digests[i]}
	}
	boot, err := runtime()
	if err != nil {
		return nil, err
	}
	p, err := action.Deps(action.DepsInput{
		Wheels: files, Bootstrap: boot, Python: target.Python, Platform: target.Platform, OutputVersion: pex.OutputVersion,
	})
	if err != nil {
		return nil, inputError{err}
	}
	return &depsPlan{Plan: p, wheels: wheels, digests: digests, target: target}, nil
}

// bootstrap returns the runtime that every PEX carries, as a tree: an Action of its own, whose result any later build
// finds.
func (s *session) bootstrap(ctx context.Context) (*merkle.Tree, error) {
	if s.runtime != nil {
		return s.runtime, nil
	}
	err := build.Again(ctx, func() error {
		r, err := s.buildBootstrap(ctx)
		if err != nil {
			return err
		}
		s.runtime, err = merkle.Load(ctx, s.cas, r.Root)
		return err
	})
	return s.runtime, err
}

func (s *session) buildBootstrap(ctx context.Context) (*build.Result, error) {
	p, err := action.Bootstrap(action.BootstrapInput{
		Wheel:         action.File{Name: fetch.PexPin.Filename, Digest: fetch.PexPin.Digest()},
		OutputVersion: pex.OutputVersion,
	})
	if err != nil {
		return nil, err
	}
	return s.executor().Run(ctx, p, func(ctx context.Context) error {
		if _, err := s.fetcher.Pinned(ctx, fetch.PexPin); err != nil {
			return fetchError(err)
		}
		return nil
	})
}

// keepBootstrap makes sure that the runtime is still there: it is an input that planning brought, perhaps long ago.
func (s *session) keepBootstrap(ctx context.Context) error {
	_, err := s.buildBootstrap(ctx)
	return err
}

// buildDeps returns deps.pex, fetching and building only when the cache lacks it.
func (s *session) buildDeps(ctx context.Context, p *depsPlan) (*build.Result, error) {
	r, err := s.executor().Run(ctx, p.Plan, func(ctx context.Context) error {
		s.builders.expect()
		if err := s.keepBootstrap(ctx); err != nil {
			return err
		}
		start := time.Now()
		ctx, span := traces.Start(ctx, "fetch wheels")
		st, err := s.fetcher.Fetch(ctx, p.wheels, p.digests)
		traces.End(span, err)
		if err != nil {
			return fetchError(err)
		}
		if st.Fetched == 0 {
			return nil
		}
		s.stage("fetch wheels", start, map[string]any{"wheels": st.Fetched, "bytes": st.Bytes},
			"%s, %s", count(st.Fetched, "wheel"), size(st.Bytes))
		return nil
	})
	return r, err
}

// buildSource returns source.pex, storing only the files that the cache lacks.
func (s *session) buildSource(ctx context.Context, p *sourcePlan) (*build.Result, error) {
	return s.executor().Run(ctx, p.Plan, func(ctx context.Context) error {
		s.builders.expect()
		if err := s.keepBootstrap(ctx); err != nil {
			return err
		}
		return step(ctx, "upload", func(ctx context.Context) error {
			if err := build.PutBlobs(ctx, s.cas, p.blobs); err != nil {
				return err
			}
			return build.PutFiles(ctx, s.cas, p.files)
		})
	})
}

// built is the outcome of a build of one location.
type built struct {
	location *project.Location
	deps     *build.Result
	source   *build.Result
	depsPlan *depsPlan
	plan     *sourcePlan
	outputs  []namedResult // of plugins
}

// buildLocation plans and builds both trees, side by side where neither needs the other.
func (s *session) buildLocation(ctx context.Context, loc *project.Location) (*built, error) {
	start := time.Now()
	s.seen.Forget() // of the build before, in a command that builds again and again
	b := &built{location: loc}
	err := step(ctx, "plan", func(ctx context.Context) (err error) {
		b.depsPlan, b.plan, err = s.plan(ctx, loc)
		return err
	})
	if err != nil {
		return nil, err
	}
	deps := b.depsPlan
	for _, w := range b.plan.sources.Warnings {
		s.app.ui.warn(w)
	}
	s.stage("plan", start, map[string]any{"location": loc.Name, "wheels": len(deps.wheels), "files": len(b.plan.sources.Files)},
		"%s, %s%s", count(len(deps.wheels), "wheel"), count(len(b.plan.sources.Files), "source file"), s.of(loc))
	s.app.timings.mark("plan")
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return step(gctx, "build deps", func(ctx context.Context) (err error) { b.deps, err = s.buildDeps(ctx, deps); return err })
	})
	g.Go(func() error {
		return step(gctx, "build source", func(ctx context.Context) (err error) { b.source, err = s.buildSource(ctx, b.plan); return err })
	})
	g.Go(func() error {
		return step(gctx, "build outputs", func(ctx context.Context) (err error) { b.outputs, err = s.buildOutputs(ctx); return err })
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	s.app.timings.mark(buildStep)
	for _, o := range b.all() {
		s.app.timings.add(o.name, o.Took, buildStep)
		s.report(loc, o.name, o.Result)
	}
	s.later.Go(func() {
		if err := s.remember(b); err != nil {
			s.app.ui.warn("the next build cannot say what differs from this one: " + err.Error())
		}
	})
	return b, nil
}

func (s *session) report(loc *project.Location, output string, r *build.Result) {
	how := "built"
	if r.Hit {
		how = "cache hit"
	}
	s.app.ui.event("built", map[string]any{
		"location": loc.Name, "output": output, "root": r.Root, "action": r.Action, "hit": r.Hit, "milliseconds": milliseconds(r.Took),
	}, "%-14s %9s  %s  %s%s", output, took(r.Took), r.Root.Short(), how, s.of(loc))
}

// fetchError says whether a wheel was refused or could not be had.
func fetchError(err error) error {
	if errors.Is(err, digest.ErrMismatch) || errors.Is(err, fetch.ErrRefused) {
		return inputError{err}
	}
	return unavailableError{err}
}
