package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/action"
	"github.com/pexpress/pexpress/plugin/lock"
	"github.com/pexpress/pexpress/plugin/pex"
)

// SourceRequest says what source.pex is made of: a project, by the rules of `pexpress build`, or exactly the files and
// links that are given.
type SourceRequest struct {
	Bootstrap        string // a directory that Bootstrap's output was written to
	Python, Platform string
	Project          *ProjectRequest
	Files, Links     []Entry
	SourceRoots      []string // directories of the tree to import from
	// ASCII refuses other names: there are build tools that store them under wrong ones.
	ASCII bool
}

// Source composes source.pex.
func Source(ctx context.Context, r SourceRequest) (*Output, error) {
	target, err := lock.ParseTarget(r.Python, r.Platform)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	cas := newStore()
	bootstrap, err := cas.read(ctx, r.Bootstrap)
	if err != nil {
		return nil, err
	}
	for _, root := range r.SourceRoots {
		if !filepath.IsLocal(filepath.FromSlash(root)) || strings.ContainsAny(root, ":\n\r\x00") {
			return nil, fmt.Errorf("%w: the source root %q is not the path of a directory inside the tree", ErrInput, root)
		}
	}
	in := &content{files: r.Files, links: r.Links, roots: r.SourceRoots}
	var run *Run
	if r.Project != nil {
		o, err := r.Project.open()
		if err != nil {
			return nil, err
		}
		in, err = o.sources(ctx)
		run = runOf(o.location)
		if err := errors.Join(err, o.close()); err != nil {
			return nil, err
		}
	}
	if r.ASCII {
		if err := in.checkASCII(); err != nil {
			return nil, err
		}
	}
	tree, err := cas.sourceTree(ctx, in)
	if err != nil {
		return nil, err
	}
	p, err := action.Source(action.SourceInput{
		Tree: tree, Bootstrap: bootstrap, Python: target.Python, Platform: target.Platform,
		SourceRoots: in.roots, OutputVersion: pex.OutputVersion,
	})
	if err != nil {
		return nil, err
	}
	out, err := cas.run(ctx, p)
	if err != nil {
		return nil, err
	}
	out.Warnings = in.warnings
	s := &out.Summary
	s.Python, s.Platform, s.SourceRoots, s.Run = target.Python, target.Platform, in.roots, run
	return out, nil
}

// checkASCII refuses names with other characters.
func (c *content) checkASCII() error {
	for _, e := range slices.Concat(c.files, c.links) {
		if strings.IndexFunc(e.Name, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
			return fmt.Errorf("%w: the name %s is not ASCII, and this build tool may store it in a remote cache under another name: "+
				"rename it, or leave it out; a build tool that keeps such names needs no --ascii", ErrInput, e.Name)
		}
	}
	return nil
}

// sourceTree makes the tree of the sources as they are in the checkout.
func (s *store) sourceTree(ctx context.Context, c *content) (*merkle.Tree, error) {
	paths := make([]string, len(c.files))
	for i, f := range c.files {
		paths[i] = f.Value
	}
	digests, err := s.files(ctx, paths)
	if err != nil {
		return nil, err
	}
	var b merkle.Builder
	var errs []error
	for i, f := range c.files {
		errs = append(errs, b.File(f.Name, digests[i]))
	}
	for _, l := range c.links {
		errs = append(errs, b.Symlink(l.Name, l.Value))
	}
	for name, content := range c.generated {
		d := digest.FromBytes(content)
		errs = append(errs, b.File(name, d), s.Put(ctx, d, bytes.NewReader(content)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	return b.Build()
}
