package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/sbom"
)

func (a *app) sbomCommand() *cobra.Command {
	var deps string
	c := &cobra.Command{
		Use:   "sbom [LOCATION | --digest DEPS_DIGEST]",
		Short: "List what a deps.pex is made of, as CycloneDX 1.6",
		Long: `Write a CycloneDX 1.6 document (JSON) with each wheel of a location's deps.pex: name, version, sha256, package URL, and
the licence that its METADATA declares. The same digest gives the same document, byte for byte.

With --digest nothing is built, and no project is needed: the digest is that of the root of a deps.pex in the cache, as
'pexpress build' and 'pexpress status --output json' show it.`,
		Args:              takes(0, 1, "give one LOCATION at most"),
		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			// The document has the standard output for itself; what is said of a build goes where warnings go.
			out := a.ui.out
			a.ui.out = a.ui.err
			switch {
			case deps != "" && len(args) > 0:
				return usageError{errors.New("name a location or a digest, not both")}
			case deps != "":
				return a.sbomOf(c.Context(), deps, out)
			}
			return a.with(c.Context(), func(s *session) error { return s.sbom(c.Context(), args, out) })
		},
	}
	c.Flags().StringVar(&deps, "digest", "", "digest of a deps.pex, HASH/SIZE")
	a.targetFlags(c)
	return c
}

// sbom writes the document of a location's deps.pex, which is built if the cache lacks it.
func (s *session) sbom(ctx context.Context, names []string, out io.Writer) error {
	loc, err := s.one(names, "as in 'pexpress sbom LOCATION'")
	if err != nil {
		return err
	}
	p, err := s.planDeps(ctx, loc, func() (*merkle.Tree, error) { return s.bootstrap(ctx) })
	if err != nil {
		return err
	}
	r, err := s.buildDeps(ctx, p)
	if err != nil {
		return err
	}
	return s.app.writeSBOM(ctx, s.cas, r.Root, out)
}

// sbomOf writes the document of a deps.pex in the cache.
func (a *app) sbomOf(ctx context.Context, deps string, out io.Writer) (err error) {
	root, err := digest.Parse(deps)
	if err != nil {
		return usageError{fmt.Errorf("--digest: %w", err)}
	}
	cas, _, closer, err := a.openCache(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	return a.writeSBOM(ctx, cas, root, out)
}

func (a *app) writeSBOM(ctx context.Context, cas cache.CAS, root digest.Digest, out io.Writer) error {
	b, err := sbom.Write(ctx, cas, root)
	switch {
	case errors.Is(err, cache.ErrNotFound), errors.Is(err, sbom.ErrNotDeps):
		return inputError{fmt.Errorf("the cache %s: %w", a.cache, err)}
	case err != nil:
		return err
	}
	_, err = out.Write(b)
	return err
}
