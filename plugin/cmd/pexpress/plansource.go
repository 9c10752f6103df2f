package main

import (
	"context"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/action"
	"github.com/pexpress/pexpress/plugin/lock"
	"github.com/pexpress/pexpress/plugin/pex"
	"github.com/pexpress/pexpress/plugin/project"
)

// sourcePlan is a planned source.pex with what is needed to bring its inputs.
type sourcePlan struct {
	*action.Plan
	sources *project.Sources
	files   map[digest.Digest]string
	blobs   map[digest.Digest][]byte
	tree    *merkle.Tree
}

// plan computes the Actions of both trees. The sources are looked through and the runtime is looked up while the lock is
// read: none needs the others, and a builder starts as soon as a file is met that has changed.
func (s *session) plan(ctx context.Context, loc *project.Location) (*depsPlan, *sourcePlan, error) {
	beside, cancel := context.WithCancel(ctx)
	listed := async(func() (*sourcePlan, error) { return s.listSource(beside, loc) })
	runtime := async(func() (*merkle.Tree, error) { return s.bootstrap(beside) })
	deps, err := s.planDeps(ctx, loc, runtime)
	if err != nil {
		cancel()
	}
	source, sourceErr := listed()
	boot, bootErr := runtime()
	cancel()
	for _, err := range []error{err, sourceErr, bootErr} {
		if err != nil {
			return nil, nil, err
		}
	}
	return deps, source, source.plan(boot, deps.target)
}

// async starts f and returns what waits for its result.
func async[T any](f func() (T, error)) func() (T, error) {
	var v T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		v, err = f()
	}()
	return func() (T, error) {
		<-done
		return v, err
	}
}

// listSource lists the files of one location and makes their tree.
func (s *session) listSource(ctx context.Context, loc *project.Location) (*sourcePlan, error) {
	src, err := s.project.Sources(ctx, loc)
	if err != nil {
		return nil, inputError{err}
	}
	p := &sourcePlan{sources: src, files: make(map[digest.Digest]string, len(src.Files)), blobs: map[digest.Digest][]byte{}}
	p.tree, err = s.sourceTree(ctx, p)
	return p, err
}

// plan computes the Action of source.pex.
func (p *sourcePlan) plan(runtime *merkle.Tree, target lock.Target) (err error) {
	p.Plan, err = action.Source(action.SourceInput{
		Tree: p.tree, Bootstrap: runtime, Python: target.Python, Platform: target.Platform,
		SourceRoots: p.sources.Roots, OutputVersion: pex.OutputVersion,
	})
	if err != nil {
		return inputError{err}
	}
	return nil
}

// sourceTree hashes the files that changed since they were hashed last and makes the tree of all.
func (s *session) sourceTree(ctx context.Context, p *sourcePlan) (*merkle.Tree, error) {
	paths := make([]string, len(p.sources.Files))
	for i, f := range p.sources.Files {
		paths[i] = f.Abs
	}
	digests, err := s.hasher.Files(ctx, paths)
	if err != nil {
		return nil, err
	}
	var b merkle.Builder
	for i, f := range p.sources.Files {
		if err := b.File(f.Path, digests[i]); err != nil {
			return nil, inputError{err}
		}
		p.files[digests[i]] = f.Abs
	}
	for path, target := range p.sources.Symlinks {
		if err := b.Symlink(path, target); err != nil {
			return nil, inputError{err}
		}
	}
	for path, content := range p.sources.Generated {
		d := digest.FromBytes(content)
		if err := b.File(path, d); err != nil {
			return nil, inputError{err}
		}
		p.blobs[d] = content
	}
	t, err := b.Build()
	if err != nil {
		return nil, inputError{err}
	}
	return t, nil
}
