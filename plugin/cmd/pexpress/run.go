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
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/plugin/pex"
)

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
		loc, err := s.one(names, "with --location NAME before --")
		if err != nil {
			return err
		}
		if b, err = s.buildLocation(ctx, loc); err != nil {
			return err
		}
		if dir, err = s.exportForRun(ctx, b); err != nil {
			return err
		}
		return s.exportOutputsForRun(ctx, b, dir)
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
	for _, o := range b.outputs {
		cmd.Env = append(cmd.Env, outputVariable(o.name)+"="+outputDir(dir, o))
	}
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

// outputDir is where runs find an output, beside the directory of the two PEXes.
func outputDir(dir string, o namedResult) string {
	return filepath.Join(filepath.Dir(dir), "output-"+o.Root.Hash())
}

// exportOutputsForRun writes the further outputs that no run has written before.
func (s *session) exportOutputsForRun(ctx context.Context, b *built, dir string) error {
	for _, o := range b.outputs {
		to := outputDir(dir, o)
		if _, err := os.Stat(to); err == nil {
			continue
		}
		tmp, err := os.MkdirTemp(filepath.Dir(to), "part")
		if err != nil {
			return err
		}
		err = s.exportOutput(ctx, o, filepath.Join(tmp, "tree"))
		if err == nil {
			err = os.Rename(filepath.Join(tmp, "tree"), to)
		}
		if _, there := os.Stat(to); there == nil {
			err = nil // another run was faster
		}
		if err := errors.Join(err, os.RemoveAll(tmp)); err != nil {
			return err
		}
	}
	return nil
}
