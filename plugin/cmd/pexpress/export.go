package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/plugin/lock"
	"github.com/pexpress/pexpress/plugin/pex"
	"github.com/pexpress/pexpress/plugin/project"
)

func (a *app) exportCommand() *cobra.Command {
	var layout, out string
	c := &cobra.Command{
		Use:   "export [LOCATION]",
		Short: "Write the two PEXes, or one that holds both, to run without pexpress",
		Long: `Build a location and write it as PEX files that any Python runs, with no pexpress there.

  zipapp   one executable file that holds the wheels and the sources
  packed   two directories, deps.pex and source.pex; wheels stay as they were published
  loose    the same two, with nothing zipped but the wheels

Run the two directories as: PEX_PATH=OUT/deps.pex python OUT/source.pex -m your.module`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(pex.Layouts, layout) {
				return usageError{fmt.Errorf("--layout is one of %s, not %q", strings.Join(pex.Layouts, ", "), layout)}
			}
			return a.with(c.Context(), func(s *session) error { return s.export(c.Context(), args, layout, out) })
		},
	}
	c.Flags().StringVar(&layout, "layout", "zipapp", "zipapp, packed or loose")
	c.Flags().StringVarP(&out, "out", "o", "", "file or directory to write; it must not exist (default LOCATION.pex, LOCATION.packed or LOCATION.loose)")
	a.targetFlags(c)
	return c
}

// buildOne builds the only location that is named, or the project's only one.
func (s *session) buildOne(ctx context.Context, names []string) (*built, error) {
	locs, err := s.locations(names)
	if err != nil {
		return nil, err
	}
	if len(locs) != 1 {
		return nil, usageError{fmt.Errorf("the project has %d locations: name one", len(locs))}
	}
	return s.buildLocation(ctx, locs[0])
}

// outName returns where to export to, which must not exist: what is there is found before anything is built.
func (s *session) outName(names []string, layout, out string) (string, error) {
	if out == "" {
		locs, err := s.locations(names)
		if err != nil {
			return "", err
		}
		out = locs[0].Name + "." + layout
		if layout == "zipapp" {
			out = locs[0].Name + ".pex"
		}
	}
	if _, err := os.Lstat(out); err == nil {
		return "", inputErrorf("%s exists: choose another name with --out, or remove it", out)
	}
	if _, err := os.Stat(filepath.Dir(out)); err != nil {
		return "", inputError{err}
	}
	return out, nil
}

// howToRun returns the command that starts the location's service from an export.
func howToRun(loc *project.Location, target lock.Target, layout, out string) string {
	program := "python" + target.Python + " " + out
	if layout != "zipapp" {
		program = fmt.Sprintf("PEX_PATH=%[2]s/deps.pex python%[1]s %[2]s/source.pex", target.Python, out)
	}
	args := strings.Join(loc.Entry.Args, " ")
	switch loc.Entry.Preset {
	case "dagster":
		return program + " -m dagster api grpc --port 4000 " + args
	case "asgi":
		return program + " -m uvicorn " + args
	case "wsgi":
		return program + " -m gunicorn " + args
	case "module":
		return program + " -m " + args
	}
	return program + " -m MODULE"
}

func (s *session) export(ctx context.Context, names []string, layout, out string) error {
	out, err := s.outName(names, layout, out)
	if err != nil {
		return err
	}
	b, err := s.buildOne(ctx, names)
	if err != nil {
		return err
	}
	if err := pex.Export(ctx, s.cas, pex.Trees{Deps: b.deps.Root, Source: b.source.Root}, layout, out); err != nil {
		return err
	}
	run := howToRun(b.location, b.depsPlan.target, layout, out)
	s.app.ui.event("exported", map[string]any{"layout": layout, "path": out, "run": run}, "%s (%s); run it: %s", out, layout, run)
	return nil
}

func (a *app) runCommand() *cobra.Command {
	var location string
	c := &cobra.Command{
		Use:   "run [--location NAME] [-- ARGUMENTS...]",
		Short: "Run Python in the environment that would be deployed",
		Long: `Build a location and run Python on the two trees, here, as pex runs them. What follows -- is what python takes:

  pexpress run -- -m quickstart.report
  pexpress run -- -c 'import quickstart; print(quickstart)'`,
		RunE: func(c *cobra.Command, args []string) error {
			var names []string
			if location != "" {
				names = []string{location}
			}
			return a.run(c.Context(), names, args)
		},
	}
	c.Flags().StringVar(&location, "location", "", "the location to run (default: the project's only one)")
	a.targetFlags(c)
	return c
}

// run builds a location, and runs Python on it when the cache is closed again: a program may run for days.
func (a *app) run(ctx context.Context, names, args []string) error {
	var dir string
	var b *built
	stdout := a.ui.out
	a.ui.out = a.ui.err // standard output is the program's
	err := a.with(ctx, func(s *session) (err error) {
		if b, err = s.buildOne(ctx, names); err != nil {
			return err
		}
		dir, err = s.exportForRun(ctx, b)
		return err
	})
	if err != nil {
		return err
	}
	python := "python" + b.depsPlan.target.Python
	bin, err := exec.LookPath(python)
	if err != nil {
		return unavailableError{fmt.Errorf("no %s on PATH: install it, or build for another with --python", python)}
	}
	cmd := exec.CommandContext(ctx, bin, append([]string{filepath.Join(dir, "source.pex")}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	// A PEX_ROOT of its own: pex's names for what it unpacks there are weaker than the digests these trees have.
	cmd.Env = append(os.Environ(), "PEX_PATH="+filepath.Join(dir, "deps.pex"),
		"PEX_ROOT="+filepath.Join(a.home, "run", "root-"+b.deps.Root.Hash()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, stdout, a.ui.err
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &exitError{code: max(exit.ExitCode(), 1)}
	}
	return err
}

// exportForRun returns a directory with the two PEXes, which several runs may share.
func (s *session) exportForRun(ctx context.Context, b *built) (string, error) {
	name := sha256.Sum256([]byte(b.deps.Root.String() + b.source.Root.String()))
	dir := filepath.Join(s.app.home, "run", hex.EncodeToString(name[:]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", err
	}
	err := pex.Export(ctx, s.cas, pex.Trees{Deps: b.deps.Root, Source: b.source.Root}, "packed", dir)
	if _, there := os.Stat(dir); err != nil && there == nil {
		return dir, nil // another run was faster
	}
	return dir, err
}
