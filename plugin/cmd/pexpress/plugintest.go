package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/plugin"
	"github.com/pexpress/pexpress/plugin/conformance"
)

func (a *app) pluginCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plugin",
		Short: "Work on builder plugins",
	}
	c.AddCommand(a.pluginTestCommand())
	return c
}

func (a *app) pluginTestCommand() *cobra.Command {
	var o conformance.Options
	var readOnly []string
	c := &cobra.Command{
		Use:   "test PROGRAM [ARGUMENT...]",
		Short: "Check that a builder plugin keeps the rules of docs/plugins.md",
		Long: `Run a builder plugin as pexpress does and in ways that a bad day might bring, and check each rule of docs/plugins.md:
a line a check, "ok", "FAILED" or "skipped". PROGRAM is a path, or the NAME of a pexpress-plugin-NAME on PATH.

The Actions that it builds have a small sample as their input root: inputs/ with style sheets, scripts and a text. A
plugin that wants other inputs gets those of --input.

Exit status: 0 all checks passed; 4 one failed.`,
		Args: takes(1, -1, "give the PROGRAM: a path, or the NAME of a pexpress-plugin-NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			program, err := findPlugin(args[0])
			if err != nil {
				return inputError{err}
			}
			o.Command = append([]string{program}, args[1:]...)
			o.ReadOnly = append(readOnly, interpreterOf(program)...)
			return a.testPlugin(c.Context(), o)
		},
	}
	c.Flags().SetInterspersed(false) // what comes after PROGRAM is its own
	c.Flags().StringVar(&o.Inputs, "input", "", "directory that becomes the input root (default: a small sample)")
	c.Flags().StringVar(&o.Kind, "kind", "", "kind to build (default: the first that the plugin names)")
	c.Flags().StringSliceVar(&readOnly, "read-only", nil, "further paths that the plugin may read, such as an interpreter's")
	c.Flags().DurationVar(&o.Timeout, "timeout", time.Minute, "how long a start and a build may take")
	return c
}

func (a *app) testPlugin(ctx context.Context, o conformance.Options) error {
	err := conformance.Run(ctx, o, func(r conformance.Result) {
		word, text := "ok", ""
		switch {
		case r.Err != nil:
			word, text = "FAILED", r.Err.Error()
		case r.Skipped != "":
			word, text = "skipped", r.Skipped
		}
		line := fmt.Sprintf("%-8s %s", word, r.Check)
		if text != "" {
			line += ": " + text
		}
		a.ui.event("check", map[string]any{"check": r.Check, "result": word, "message": text}, "%s", line)
	})
	if errors.Is(err, conformance.ErrFailed) {
		return errors.Join(plugin.ErrBuilder, err)
	}
	return err
}
