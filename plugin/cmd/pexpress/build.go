package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/plugin/project"
)

func (a *app) buildCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "build [LOCATION...]",
		Short: "Make deps.pex and source.pex, or find them in the cache",
		Long: `Make deps.pex and source.pex of each location (all, if none is named), or find them in the cache.

deps.pex is computed from the lock: a wheel is downloaded only when the cache lacks it. A tree's name is the digest of
its root Directory: the same inputs give the same name on every machine.`,
		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(s *session) error {
				_, err := s.build(c.Context(), args)
				return err
			})
		},
	}
	a.targetFlags(c)
	return c
}

// build builds the named locations, all if there are none.
func (s *session) build(ctx context.Context, names []string) ([]*built, error) {
	locs, err := s.locations(names)
	if err != nil {
		return nil, err
	}
	s.several = len(locs) > 1
	var all []*built
	for _, loc := range locs {
		b, err := s.buildLocation(ctx, loc)
		if err != nil {
			return nil, fmt.Errorf("location %s: %w", loc.Name, err)
		}
		all = append(all, b)
	}
	blobs, bytes := s.cas.Shipped()
	s.app.ui.event("stored", map[string]any{"blobs": blobs, "bytes": bytes},
		"%-14s %9s  %s new in the cache, %s", "stored", "", count(blobs, "blob"), size(bytes))
	return all, nil
}

// locations returns the named locations of the project, all if there are none.
func (s *session) locations(names []string) ([]*project.Location, error) {
	var locs []*project.Location
	if len(names) == 0 {
		for i := range s.project.Locations {
			locs = append(locs, &s.project.Locations[i])
		}
		return locs, nil
	}
	for _, n := range names {
		loc, err := s.project.Location(n)
		if err != nil {
			if above := s.app.above(); above != "" {
				err = fmt.Errorf("%w; %s", err, above)
			}
			return nil, usageError{err}
		}
		locs = append(locs, loc)
	}
	return locs, nil
}

// completeLocations completes names of the project's locations.
func (a *app) completeLocations(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	p, err := project.Load(a.dir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, l := range p.Locations {
		names = append(names, l.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
