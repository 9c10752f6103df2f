package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/plugin/lock"
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

func (s *session) lock(ctx context.Context, inputs []string, upgrade bool) error {
	content, err := resolve.Lock(ctx, s.lockRequest(inputs, upgrade))
	if err != nil {
		return inputError{err}
	}
	l, err := lock.Parse(content)
	if err != nil {
		return fmt.Errorf("the resolver wrote a lock that cannot be read: %w", err)
	}
	path := filepath.Join(s.project.Dir, s.project.Lock)
	if err := writeFile(path, content); err != nil {
		return err
	}
	s.app.ui.event("locked", map[string]any{"path": path, "packages": l.Len(), "requires_python": l.RequiresPython()},
		"%s: %s", path, count(l.Len(), "package"))
	return nil
}

func (s *session) lockRequest(inputs []string, upgrade bool) resolve.Request {
	return resolve.Request{
		Dir: s.project.Dir, Inputs: inputs, Output: s.project.Lock,
		Python:  first(s.app.python, s.project.Python),
		Extras:  s.project.Extras,
		Groups:  s.project.Groups,
		Upgrade: upgrade,
		Fetcher: s.fetcher, StateDir: s.app.stateDir(), Stderr: s.app.ui.err,
	}
}

// writeFile replaces path in one step, so that a reader sees the old content or the new.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
