package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/plugin/lock"
	"github.com/pexpress/pexpress/plugin/project"
	"github.com/pexpress/pexpress/plugin/resolve"
)

func (a *app) lockCommand() *cobra.Command {
	var upgrade bool
	c := &cobra.Command{
		Use:   "lock [REQUIREMENTS...]",
		Short: "Resolve the project's requirements into pylock.toml",
		Long: `Resolve the project's requirements into pylock.toml (PEP 751), with uv.

Without arguments the requirements are the project's: uv.lock, pyproject.toml (with the configured extras and groups;
poetry's too), requirements.txt, setup.cfg or setup.py, the first that is there. The index, credentials and proxies
are those that pip and uv are configured to use. Versions in an existing pylock.toml are kept unless --upgrade is given.`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(s *session) error { return s.lock(c.Context(), args, upgrade) })
		},
	}
	c.Flags().BoolVar(&upgrade, "upgrade", false, "take the newest versions, whatever pylock.toml says")
	a.targetFlags(c)
	return c
}

// lock writes the lock of each location; several may share one.
func (s *session) lock(ctx context.Context, inputs []string, upgrade bool) error {
	if err := checkShared(s.project.Locations); err != nil {
		return inputError{err}
	}
	done := map[string]bool{}
	for i := range s.project.Locations {
		loc := &s.project.Locations[i]
		if done[loc.Lock] {
			continue
		}
		done[loc.Lock] = true
		if err := s.lockLocation(ctx, loc, inputs, upgrade); err != nil {
			return err
		}
	}
	return nil
}

// checkShared refuses locations that share a lock and need different extras or groups. A resolver's pylock.toml does not
// say of which extra a package is: made for all of them it would give each location the packages of the others.
func checkShared(locs []project.Location) error {
	owner := map[string]*project.Location{}
	for i := range locs {
		loc := &locs[i]
		other := owner[loc.Lock]
		if other == nil {
			owner[loc.Lock] = loc
			continue
		}
		if sameNames(loc.Extras, other.Extras) && sameNames(loc.Groups, other.Groups) {
			continue
		}
		return fmt.Errorf("the locations %s and %s have different extras or groups and the same lock, %s, which can be made for one of them: "+
			"give each its own, as with lock = %q in [tool.pexpress.location.%s]",
			other.Name, loc.Name, loc.Lock, ownLock(loc), tomlKey(loc.Name))
	}
	return nil
}

// sameNames reports whether two lists of extras or groups mean the same ones.
func sameNames(a, b []string) bool {
	set := func(names []string) map[string]bool {
		m := map[string]bool{}
		for _, n := range names {
			m[lock.NormalizeName(n)] = true
		}
		return m
	}
	return maps.Equal(set(a), set(b))
}

// tomlKey writes a location's name as TOML has it in the name of a table.
func tomlKey(name string) string {
	if strings.Contains(name, ".") {
		return strconv.Quote(name)
	}
	return name
}

// ownLock is a name for a lock of a location's own, beside the one that it shares.
func ownLock(loc *project.Location) string {
	return filepath.Join(filepath.Dir(loc.Lock), "pylock."+strings.ReplaceAll(loc.Name, ".", "-")+".toml")
}

func (s *session) lockLocation(ctx context.Context, loc *project.Location, inputs []string, upgrade bool) error {
	start := time.Now()
	req := s.lockRequest(loc, inputs, upgrade)
	for _, p := range req.Platforms {
		if _, err := lock.ParseTarget(first(req.Python, "3.11"), p); err != nil {
			return inputError{err}
		}
	}
	content, err := resolve.Lock(ctx, req)
	if above := s.app.above(); errors.Is(err, resolve.ErrNoInputs) && above != "" {
		return inputErrorf("%s says nothing of requirements; %s", req.Dir, above)
	}
	if err != nil {
		return lockError(err)
	}
	l, err := lock.Parse(content)
	if err != nil {
		return fmt.Errorf("the resolver wrote a lock that cannot be read: %w", err)
	}
	path := filepath.Join(s.project.Dir, loc.Lock)
	if err := durable.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	s.app.ui.event("locked", map[string]any{
		"path": path, "packages": l.Len(), "requires_python": l.RequiresPython(), "milliseconds": milliseconds(time.Since(start)),
	}, "%-14s %9s  %s, %s", "locked", took(time.Since(start)), path, count(l.Len(), "package"))
	return nil
}

// lockError tells requirements that have no solution from a resolver that could not be had.
func lockError(err error) error {
	if errors.Is(err, resolve.ErrResolve) {
		return inputError{err}
	}
	return fetchError(err)
}

// hostPython returns the minor version of the python3 on PATH, which a lock is for when nothing says another; "" if there
// is none. The patch release is left out: the same lock should come of it on the next machine.
func hostPython() string {
	out, err := exec.Command("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func (s *session) lockRequest(loc *project.Location, inputs []string, upgrade bool) resolve.Request {
	python := first(s.app.python, s.project.Python)
	if python == "" {
		python = hostPython()
	}
	platforms := s.project.Platforms
	if s.app.platform != "" {
		platforms = []string{s.app.platform}
	}
	if len(platforms) == 0 {
		platforms = []string{lock.DefaultPlatform}
	}
	return resolve.Request{
		Dir: filepath.Join(s.project.Dir, filepath.Dir(loc.Lock)), Inputs: inputs, Output: filepath.Base(loc.Lock),
		Python:    python,
		Platforms: platforms,
		Extras:    loc.Extras,
		Groups:    loc.Groups,
		Upgrade:   upgrade,
		Fetcher:   s.fetcher, StateDir: s.app.stateDir(), Stderr: s.app.ui.err,
	}
}
