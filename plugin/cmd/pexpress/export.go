package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/merkle"
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

Further outputs of the project's are directories beside the two; a zipapp has no place for them.

Run the two directories as: PEX_PATH=OUT/deps.pex python OUT/source.pex -m your.module`,
		Args:              takes(0, 1, "give one LOCATION at most"),
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

// one returns the only location that is named, or the project's only one. how says how to name it.
func (s *session) one(names []string, how string) (*project.Location, error) {
	locs, err := s.locations(names)
	if err != nil {
		return nil, err
	}
	if len(locs) == 1 {
		return locs[0], nil
	}
	var all []string
	for _, l := range locs {
		all = append(all, l.Name)
	}
	return nil, usageError{fmt.Errorf("there are several locations, %s: name one, %s", strings.Join(all, ", "), how)}
}

// outName returns where to export to, which must not exist: what is there is found before anything is built.
func outName(loc *project.Location, layout, out string) (string, error) {
	if out == "" {
		out = loc.Name + "." + layout
		if layout == "zipapp" {
			out = loc.Name + ".pex"
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
	if len(s.project.Outputs) > 0 && layout == "zipapp" {
		return inputErrorf("a zipapp has no place for the output %s of the project: pass --layout packed or --layout loose", s.project.Outputs[0].Name)
	}
	loc, err := s.one(names, "as in 'pexpress export LOCATION'")
	if err != nil {
		return err
	}
	if out, err = outName(loc, layout, out); err != nil {
		return err
	}
	b, err := s.buildLocation(ctx, loc)
	if err != nil {
		return err
	}
	if err := pex.Export(ctx, s.cas, pex.Trees{Deps: b.deps.Root, Source: b.source.Root}, layout, out); err != nil {
		return err
	}
	run := howToRun(b.location, b.depsPlan.target, layout, out)
	for _, o := range b.outputs {
		dir := filepath.Join(out, o.name)
		if err := s.exportOutput(ctx, o, dir); err != nil {
			return errors.Join(err, os.RemoveAll(out))
		}
		run = outputVariable(o.name) + "=" + dir + " " + run
	}
	s.app.ui.event("exported", map[string]any{"layout": layout, "path": out, "run": run}, "%s (%s); run it: %s", out, layout, run)
	return nil
}

// outputVariable is where a program finds a further output, as under a codeserver.
func outputVariable(name string) string {
	return "PEXPRESS_OUTPUT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// exportOutput writes a further output to a directory that must not exist.
func (s *session) exportOutput(ctx context.Context, o namedResult, dir string) error {
	t, err := merkle.Load(ctx, s.cas, o.Root)
	if err == nil {
		_, err = merkle.Materialize(ctx, s.cas, t, dir)
	}
	if err != nil {
		return fmt.Errorf("output %s: %w", o.name, err)
	}
	return nil
}
