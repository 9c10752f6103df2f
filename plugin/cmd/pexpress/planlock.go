package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/plugin/lock"
	"github.com/pexpress/pexpress/plugin/project"
)

// readLock reads the location's lock.
func (s *session) readLock(ctx context.Context, loc *project.Location) (*lock.Lock, error) {
	path := filepath.Join(s.project.Dir, loc.Lock)
	b, err := durable.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		b, err = s.impliedLock(ctx, loc)
	}
	if err != nil {
		return nil, err
	}
	l, err := lock.Parse(b)
	if err != nil {
		return nil, inputError{fmt.Errorf("%s: %w", path, err)}
	}
	return l, nil
}

// target returns what the project is built for: flags, else its configuration, else what the lock was made for.
func (s *session) target(loc *project.Location, l *lock.Lock) (lock.Target, error) {
	python := first(s.app.python, s.project.Python)
	if python == "" {
		python = l.DefaultPython() // looks through versions: milliseconds
	}
	if _, err := os.Stat(filepath.Join(s.project.Dir, loc.Lock)); python == "" && errors.Is(err, os.ErrNotExist) {
		text := fmt.Sprintf("no %s in %s, which also says no Python version", filepath.Base(loc.Lock), filepath.Join(s.project.Dir, filepath.Dir(loc.Lock)))
		if above := s.app.above(); above != "" {
			return lock.Target{}, inputErrorf("%s; %s", text, above)
		}
		return lock.Target{}, inputErrorf("%s: is it the project's directory (--directory)? "+
			"'pexpress lock' makes the lock; a project without requirements says python = \"3.11\" in [tool.pexpress]", text)
	}
	if python == "" {
		return lock.Target{}, inputError{fmt.Errorf(
			"no Python version: the lock has no requires-python; pass --python 3.11 or set python = \"3.11\" in [tool.pexpress]")}
	}
	t, err := lock.ParseTarget(python, first(s.app.platform, s.project.Platform, lock.DefaultPlatform))
	if err != nil {
		return t, inputError{err}
	}
	return t, nil
}

// selectWheels selects the location's wheels and checks that they are what the project declares.
func (s *session) selectWheels(loc *project.Location, l *lock.Lock, target lock.Target) ([]lock.Wheel, error) {
	path := filepath.Join(s.project.Dir, loc.Lock)
	wheels, err := l.Select(target, lock.Selection{Extras: loc.Extras, Groups: loc.Groups})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	locked := map[string]string{}
	for i := range wheels {
		locked[wheels[i].Name] = wheels[i].Version
		if p := wheels[i].Path; p != "" && !filepath.IsAbs(p) {
			wheels[i].Path = filepath.Join(filepath.Dir(path), filepath.FromSlash(p))
		}
	}
	return wheels, errors.Join(s.project.CheckLocked(loc, locked, target.Applies), checkServer(loc, locked))
}

// servers are the programs that a codeserver runs an application with, by preset: distributions of the lock like any other.
var servers = map[string]string{"asgi": "uvicorn", "wsgi": "gunicorn"}

// checkServer checks that the lock has what the location's preset runs.
func checkServer(loc *project.Location, locked map[string]string) error {
	server := servers[loc.Entry.Preset]
	if _, ok := locked[server]; ok || server == "" {
		return nil
	}
	return fmt.Errorf("preset %q of location %s runs the application with %s, which is not in %s: add %q to the project's dependencies, and run 'pexpress lock'",
		loc.Entry.Preset, loc.Name, server, filepath.Base(loc.Lock), server)
}
