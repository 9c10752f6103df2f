package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/codeserver/compare"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/plugin/project"
)

func (a *app) diffCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "diff [LOCATION [VERSION [VERSION]]]",
		Short: "Show what differs between two versions that a codeserver keeps",
		Long: `Show what differs between two versions of a location, wheel by wheel, file by file and in how they are run: from the
version before to the one that serves; from VERSION to the one that serves; or from the first VERSION to the second. A
VERSION is one that 'pexpress status LOCATION' lists, or a unique prefix of its name. LOCATION may be left out if the
codeserver has only one, or only one of the project's.

The codeserver says which trees the versions are made of, and the cache what is in these: give both the same address. No
file is read. Of environment variables the names are shown, and never the values.`,
		Args: takes(0, 3, "give a LOCATION, and two VERSIONs at most"),

		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			srv, err := a.dial(c.Context(), to)
			if err != nil {
				return err
			}
			defer srv.Close()
			list, err := srv.List(c.Context(), &codeserverpb.ListRequest{})
			if err != nil {
				return deployError(err)
			}
			return a.diff(c.Context(), list.GetLocations(), args)
		},
	}
	serverFlag(c, &to)
	return c
}

// diff reports what differs between two versions of one of the codeserver's locations.
func (a *app) diff(ctx context.Context, all []*codeserverpb.Location, args []string) (err error) {
	l, err := a.locationIn("diff", all, args)
	if err != nil {
		return err
	}
	before, after, err := versionPair(l, args[min(len(args), 1):])
	if err != nil {
		return err
	}
	cas, _, closer, err := a.openCache(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	changes, err := compare.Versions(ctx, cas, before.GetSpec(), after.GetSpec())
	if errors.Is(err, cache.ErrNotFound) {
		return unavailableError{fmt.Errorf("the cache %s does not have all of %s and %s of %s: %w; it has dropped what was not used for long, "+
			"or the codeserver uses another one, which --cache names", a.cache, short(before.GetName()), short(after.GetName()), l.GetName(), err)}
	}
	if err != nil {
		return err
	}
	a.ui.event("diff", map[string]any{
		"location": l.GetName(), "from": before.GetName(), "to": after.GetName(), "wheels": append([]compare.Wheel{}, changes.Wheels...),
		"trees": append([]compare.Tree{}, changes.Trees...), "settings": append([]compare.Setting{}, changes.Settings...),
	}, "%s: from %s to %s\n%s", l.GetName(), versionOf(l, before), versionOf(l, after), changesText(changes))
	return nil
}

// locationIn returns the location that a command names, else the only one of the codeserver's, or of those the only one of the project's.
func (a *app) locationIn(command string, all []*codeserverpb.Location, args []string) (*codeserverpb.Location, error) {
	if len(args) > 0 {
		l := locationOf(all, args[0])
		if l == nil {
			return nil, inputErrorf("the codeserver has no location %q", args[0])
		}
		return l, nil
	}
	var names []string
	for _, l := range all {
		if len(l.GetVersions()) > 0 { // "*" stands for what a channel has not said yet
			names = append(names, l.GetName())
		}
	}
	if len(names) == 0 {
		return nil, inputErrorf("the codeserver serves nothing yet")
	}
	found := names
	if len(names) > 1 {
		found = nil
		if p, err := project.Load(a.dir); err == nil {
			for _, l := range p.Locations {
				if slices.Contains(names, l.Name) {
					found = append(found, l.Name)
				}
			}
		}
	}
	if len(found) != 1 {
		return nil, usageError{fmt.Errorf("the codeserver has several locations, %s: name one, as in 'pexpress %s LOCATION'", strings.Join(names, ", "), command)}
	}
	return locationOf(all, found[0]), nil
}

// versionPair returns the two versions that are compared, as the names say.
func versionPair(l *codeserverpb.Location, names []string) (before, after *codeserverpb.Version, err error) {
	if len(names) < 2 {
		if after = firstOf(l, l.GetCurrent()); after == nil {
			return nil, nil, inputErrorf("location %s serves no version now: name two that 'pexpress status %s' lists", l.GetName(), l.GetName())
		}
	}
	if len(names) == 0 {
		if before = versionBefore(l); before == nil {
			return nil, nil, inputErrorf("location %s has one version only: after the next deploy there is something to compare", l.GetName())
		}
		return before, after, nil
	}
	if before, err = findVersion(l, names[0]); err == nil && len(names) == 2 {
		after, err = findVersion(l, names[1])
	}
	return before, after, err
}

// versionBefore returns the version that a rollback would go to, else the newest other one that has been deployed, nil if there
// is none.
func versionBefore(l *codeserverpb.Location) *codeserverpb.Version {
	if v := firstOf(l, l.GetPrevious()); v != nil {
		return v
	}
	for _, v := range l.GetVersions() {
		if v.GetName() != l.GetCurrent() && !isTried(l, v) && v.GetState() != codeserverpb.State_STARTING {
			return v
		}
	}
	return nil
}

// findVersion returns the version of that name, or the only one whose name begins so, as the codeserver does for a rollback.
func findVersion(l *codeserverpb.Location, prefix string) (*codeserverpb.Version, error) {
	if v := firstOf(l, prefix); v != nil {
		return v, nil
	}
	var found *codeserverpb.Version
	for _, v := range l.GetVersions() {
		switch {
		case prefix == "" || !strings.HasPrefix(v.GetName(), prefix):
		case found == nil:
			found = v
		case found.GetName() != v.GetName():
			return nil, inputErrorf("%s is the beginning of several versions of %s; write more of it", prefix, l.GetName())
		}
	}
	if found == nil {
		return nil, inputErrorf("location %s has no version %q; pexpress status %s shows those that are kept", l.GetName(), prefix, l.GetName())
	}
	return found, nil
}

// versionOf says which version of a location one is.
func versionOf(l *codeserverpb.Location, v *codeserverpb.Version) string {
	text := short(v.GetName()) + " (" + v.GetDeployedAt().AsTime().Local().Format(time.DateTime)
	if v.GetName() == l.GetCurrent() {
		text += ", serves"
	}
	return text + ")"
}

// changesText lists what differs, in the order of the codeserver's page.
func changesText(c *compare.Changes) string {
	if c.Empty() {
		return "  nothing differs"
	}
	var lines []string
	add := func(kind compare.Kind, what string) {
		lines = append(lines, fmt.Sprintf("  %-8s %s", kind, oneLine(what)))
	}
	if len(c.Wheels) > 0 {
		lines = append(lines, "wheels:")
	}
	for _, w := range c.Wheels {
		add(w.Kind, wheelText(w)+sizeText(w.Kind, w.Before, w.After))
	}
	for _, t := range c.Trees {
		name := t.Name
		if name == "source" || name == "deps" {
			name += ".pex"
		}
		lines = append(lines, "files of "+name+":")
		for _, f := range t.Files {
			add(f.Kind, f.Path+sizeText(f.Kind, f.Before, f.After))
		}
	}
	if len(c.Settings) > 0 {
		lines = append(lines, "settings:")
	}
	for _, s := range c.Settings {
		values := s.Before + " -> " + s.After
		if s.Kind != compare.Changed {
			values = s.Before + s.After // one of them is empty
		}
		add(s.Kind, s.Name+": "+values)
	}
	return strings.Join(lines, "\n")
}

func wheelText(w compare.Wheel) string {
	switch {
	case w.Kind != compare.Changed:
		return w.Name + " " + w.From + w.To // one of them is empty
	case w.From == w.To:
		return w.Name + " " + w.To + ", other bytes"
	}
	return w.Name + " " + w.From + " -> " + w.To
}

// sizeText is how large a wheel or a file is, and how much larger than before.
func sizeText(kind compare.Kind, before, after int64) string {
	switch more := after - before; {
	case kind == compare.Removed:
		return " (" + size(before) + ")"
	case kind == compare.Added || more == 0:
		return " (" + size(after) + ")"
	case more < 0:
		return " (" + size(after) + ", -" + size(-more) + ")"
	default:
		return " (" + size(after) + ", +" + size(more) + ")"
	}
}
