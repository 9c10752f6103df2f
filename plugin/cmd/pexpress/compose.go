package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/plugin/compose"
)

// expandArguments reads the arguments of the commands for build tools from files where `@FILE` says so, one argument a
// line: a list of ten thousand sources is longer than a command line may be.
func expandArguments(args []string) ([]string, error) {
	if len(args) == 0 || args[0] != "compose" && args[0] != "digest" && (args[0] != "lock" || len(args) < 2 || args[1] != "select") {
		return args, nil
	}
	var all []string
	for _, arg := range args {
		file, ok := strings.CutPrefix(arg, "@")
		if !ok {
			all = append(all, arg)
			continue
		}
		b, err := readArguments(file)
		if err != nil {
			return nil, usageError{fmt.Errorf("arguments: %w", err)}
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSuffix(line, "\n"); line != "" {
				all = append(all, line)
			}
		}
	}
	return all, nil
}

// maxArguments bounds a file of arguments: a million sources.
const maxArguments = 256 << 20

func readArguments(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxArguments+1))
	if err == nil && len(b) > maxArguments {
		err = fmt.Errorf("%s has more than %s", file, size(maxArguments))
	}
	return b, err
}

func (a *app) composeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "compose",
		Short: "Make the trees from files and directories, for build tools (no cache, no network, no home)",
		Long: `Make deps.pex and source.pex from files and directories that a build tool has laid out: Bazel, Pants, Make.

Nothing is read but what the arguments name: no cache, no network, no home directory. The trees are those that
'pexpress build' makes, with the same digests. Arguments may be given as @FILE, one a line.`,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkOutput() },
	}
	c.AddCommand(a.composeBootstrapCommand(), a.composeDepsCommand(), a.composeSourceCommand(), a.composeZipappCommand(),
		a.composeDescribeCommand())
	return c
}

// composed is what the commands that make a tree share.
type composed struct {
	out, summary, blobs string
}

func (o *composed) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.out, "out", "", "directory to write; it must not exist, or be empty")
}

func (o *composed) summaryFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.summary, "summary", "", "file to describe the tree in, for compose describe")
	c.Flags().StringVar(&o.blobs, "blobs", "", "directory for the contents of the tree's files, each named by its hash")
}

func required(c *cobra.Command, names ...string) {
	for _, n := range names {
		if err := c.MarkFlagRequired(n); err != nil {
			panic(err) // there is no such flag
		}
	}
}

func (o *composed) write(ctx context.Context, a *app, out *compose.Output, err error) error {
	if err != nil {
		return composeError(err)
	}
	for _, w := range out.Warnings {
		a.ui.warn(w)
	}
	if o.out+o.summary+o.blobs == "" {
		return usageError{errors.New("nothing is to be written: give --out")}
	}
	var errs []error
	if o.out != "" {
		errs = append(errs, out.Write(ctx, o.out))
	}
	if o.blobs != "" {
		errs = append(errs, out.WriteBlobs(ctx, o.blobs))
	}
	if o.summary != "" {
		errs = append(errs, compose.WriteJSON(o.summary, out.Summary))
	}
	return composeError(errors.Join(errs...))
}

// composeError sorts an error by what the user can do.
func composeError(err error) error {
	if errors.Is(err, compose.ErrInput) || errors.Is(err, os.ErrNotExist) {
		return inputError{err}
	}
	return err
}

func (a *app) composeBootstrapCommand() *cobra.Command {
	var o composed
	var wheel string
	c := &cobra.Command{
		Use:   "bootstrap --wheel pex-VERSION.whl --out DIR",
		Short: "Take the runtime that every PEX carries out of the pinned pex wheel",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := compose.Bootstrap(c.Context(), wheel)
			return o.write(c.Context(), a, out, err)
		},
	}
	c.Flags().StringVar(&wheel, "wheel", "", "the pex wheel that `pexpress lock select` names")
	required(c, "wheel")
	o.flags(c)
	return c
}

func (a *app) composeDepsCommand() *cobra.Command {
	var o composed
	var r compose.DepsRequest
	c := &cobra.Command{
		Use:   "deps --bootstrap DIR --python 3.11 --platform TAG [--wheel FILE]... --out DIR",
		Short: "Make deps.pex of wheels",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := compose.Deps(c.Context(), r)
			return o.write(c.Context(), a, out, err)
		},
	}
	composeTargetFlags(c, &r.Bootstrap, &r.Python, &r.Platform)
	c.Flags().StringArrayVar(&r.Wheels, "wheel", nil, "a wheel; its name is the file's")
	o.flags(c)
	o.summaryFlags(c)
	return c
}

func composeTargetFlags(c *cobra.Command, bootstrap, python, platform *string) {
	c.Flags().StringVar(bootstrap, "bootstrap", "", "directory that compose bootstrap has written")
	c.Flags().StringVar(python, "python", "", "Python version to build for, such as 3.11")
	c.Flags().StringVar(platform, "platform", "", "platform tag to build for, such as manylinux_2_28_x86_64")
	required(c, "bootstrap", "python", "platform")
}

// cutEntry cuts NAME=VALUE. In the name \= and \\ stand for = and \, so that every name can be said.
func cutEntry(s string) (name, value string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '=':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '=' || s[i+1] == '\\'):
			i++
		}
		b.WriteByte(s[i])
	}
	return s, "", false
}

// entries reads NAME=VALUE arguments.
func entries(flag string, values []string) ([]compose.Entry, error) {
	var all []compose.Entry
	for _, v := range values {
		name, value, ok := cutEntry(v)
		if !ok || name == "" || value == "" {
			return nil, usageError{fmt.Errorf("--%s takes NAME=%s, not %q", flag, map[string]string{"file": "PATH", "link": "TARGET"}[flag], v)}
		}
		all = append(all, compose.Entry{Name: path.Clean(name), Value: value})
	}
	return all, nil
}

func (a *app) composeZipappCommand() *cobra.Command {
	var r compose.ZipappRequest
	var out string
	c := &cobra.Command{
		Use:   "zipapp --deps DIR --source DIR [--module M | --script S] [--interpreter PYTHON] --out FILE",
		Short: "Put both trees into one file that runs anywhere",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return composeError(compose.Zipapp(c.Context(), r, out))
		},
	}
	c.Flags().StringVar(&r.Deps, "deps", "", "directory of a deps.pex")
	c.Flags().StringVar(&r.Source, "source", "", "directory of a source.pex")
	c.Flags().StringVar(&r.Module, "module", "", "module to run, pkg.mod or pkg.mod:function (default: what python takes: -m, -c, a file)")
	c.Flags().StringVar(&r.Script, "script", "", "console script of the wheels to run")
	c.Flags().StringVar(&r.Interpreter, "interpreter", "", "Python for the file's first line, a path (default: /usr/bin/env python3.N)")
	c.Flags().BoolVar(&r.Test, "test", false, "the file is a test: what pex unpacks stays below $TEST_TMPDIR, if that is set")
	c.Flags().StringVar(&out, "out", "", "file to write")
	required(c, "deps", "source", "out")
	return c
}
