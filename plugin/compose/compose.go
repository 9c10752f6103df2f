// Package compose makes deps.pex, source.pex and the bootstrap out of files that lie in directories, for build tools
// that bring the inputs and keep the outputs themselves: Bazel, Pants, Make.
//
// It is plan and builder as `pexpress build` has them (packages action and pex), run in this process on a CAS that
// lives as long as the call: no cache, no network, no home directory, no daemon. So the trees have the digests that
// `pexpress build` gives them.
package compose

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/action"
	"github.com/pexpress/pexpress/plugin/fetch"
	"github.com/pexpress/pexpress/plugin/lock"
	"github.com/pexpress/pexpress/plugin/pex"
)

// ErrInput is wrapped by the errors about files that are refused: they are not what they have to be.
var ErrInput = errors.New("refused")

// Output is a composed tree. Its files' contents are read from where the inputs lie, when it is written.
type Output struct {
	Tree *merkle.Tree
	// Summary says what a build tool's later steps need to know of the tree, without the tree.
	Summary Summary
	// Warnings are for the user; none of them stops anything.
	Warnings []string

	cas *store
}

// Bootstrap takes pex's runtime out of the pinned pex wheel.
func Bootstrap(ctx context.Context, wheel string) (*Output, error) {
	cas := newStore()
	files, err := cas.wheels(ctx, []string{wheel})
	if err != nil {
		return nil, err
	}
	if want := fetch.PexPin.Digest(); files[0].Digest != want {
		return nil, fmt.Errorf("%w: %s has the digest %s; this pexpress needs %s, %s: take the wheel that `pexpress lock select` names",
			ErrInput, wheel, files[0].Digest, fetch.PexPin.Filename, want)
	}
	files[0].Name = fetch.PexPin.Filename
	p, err := action.Bootstrap(action.BootstrapInput{Wheel: files[0], OutputVersion: pex.OutputVersion})
	if err != nil {
		return nil, err
	}
	return cas.run(ctx, p)
}

// DepsRequest says what deps.pex is made of.
type DepsRequest struct {
	Bootstrap        string // a directory that Bootstrap's output was written to
	Python, Platform string
	Wheels           []string // files by the names that they were published under
}

// Deps composes deps.pex.
func Deps(ctx context.Context, r DepsRequest) (*Output, error) {
	target, err := lock.ParseTarget(r.Python, r.Platform)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	cas := newStore()
	bootstrap, err := cas.read(ctx, r.Bootstrap)
	if err != nil {
		return nil, err
	}
	wheels, err := cas.wheels(ctx, r.Wheels)
	if err != nil {
		return nil, err
	}
	p, err := action.Deps(action.DepsInput{
		Wheels: wheels, Bootstrap: bootstrap, Python: target.Python, Platform: target.Platform, OutputVersion: pex.OutputVersion,
	})
	if err != nil {
		return nil, err
	}
	out, err := cas.run(ctx, p)
	if err != nil {
		return nil, err
	}
	out.Summary.Python, out.Summary.Platform = target.Python, target.Platform
	return out, nil
}

// run plays the executor's part: it has the builder make the planned tree out of what the store holds.
func (s *store) run(ctx context.Context, p *action.Plan) (*Output, error) {
	if err := p.Upload(ctx, s); err != nil {
		return nil, err
	}
	result, err := pex.New().Build(ctx, s, p.Digest)
	if err != nil {
		return nil, err
	}
	dirs := result.GetOutputDirectories()
	if len(dirs) != 1 {
		return nil, fmt.Errorf("the builder made %d directories for %s", len(dirs), p.Output)
	}
	root, err := digest.FromProto(dirs[0].GetRootDirectoryDigest())
	if err != nil {
		return nil, err
	}
	t, err := merkle.Load(ctx, s, root)
	if err != nil {
		return nil, err
	}
	return &Output{Tree: t, Summary: Summary{Version: SummaryVersion, Kind: p.Kind, Tree: t}, cas: s}, nil
}

// wheels takes in wheels by the base names of their files.
func (s *store) wheels(ctx context.Context, paths []string) ([]action.File, error) {
	digests, err := s.files(ctx, paths)
	if err != nil {
		return nil, err
	}
	files := make([]action.File, len(paths))
	for i, path := range paths {
		files[i] = action.File{Name: filepath.Base(path), Digest: digests[i]}
	}
	return files, nil
}
