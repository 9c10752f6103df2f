package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/cache/open"
)

// version is the release that this is on the way to.
const version = "0.1.0-dev"

// app is one invocation: its global flags and where it reads and writes.
type app struct {
	dir      string
	home     string
	cache    string
	output   string
	python   string
	platform string
	signKey  string
	stdin    io.Reader
	// cacheChosen is whether the user chose the cache for this command, so that the project's setting gives way.
	cacheChosen bool
	tracing     *tracing
	ui          *ui
	timings     *timings
	addresses   map[string]string // of the locations that were deployed
}

const rootHelp = `pexpress turns a Python project into two content-addressed trees, deps.pex (the wheels of its lock) and
source.pex (its own files), keeps them in a cache, and has a codeserver serve them. Only what changed is built,
shipped and started.

  pexpress lock      resolve the project's requirements into pylock.toml
  pexpress build     make deps.pex and source.pex, or find them in the cache
  pexpress deploy    build, and move a codeserver's traffic to the new version
  pexpress dev       deploy on each save
  pexpress explain   say what a build would do, and which change makes it do so

Exit status: 0 done; 1 something failed that is not listed here; 2 wrong usage; 3 the input was refused (configuration,
lock, wheel, source tree); 4 a builder failed; 5 the new version does not serve, the old one still does;
6 the cache, an index or the codeserver could not be reached or used.`

// usageText matches what cobra says of a command line that makes no sense; it has no type for it.
var usageText = lazy.Regexp(`^(unknown command|accepts |requires at |unknown shorthand|required flag)`)

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (result error) {
	a := &app{stdin: stdin, ui: newUI(false, stdout, stderr), tracing: new(tracing), timings: newTimings(), addresses: map[string]string{}}
	defer func() { a.tracing.end(result, a.ui.warn) }()
	root := a.command()
	args, err := expandArguments(args)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if err != nil && usageText().MatchString(err.Error()) {
		err = usageError{fmt.Errorf("%w; see pexpress --help", err)}
	}
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		var served servedError
		known := errors.As(err, &served)
		err = fmt.Errorf("interrupted; nothing partial is left, run the command again to go on")
		if known {
			err = servedError{err, served.serves}
		}
	}
	err = a.cacheFailure(err)
	if a.ui.json {
		fmt.Fprintln(stdout, eventJSON("error", map[string]any{"message": err.Error(), "exit_code": exitCode(err)}))
	} else {
		fmt.Fprintln(stderr, "pexpress: "+printable(err.Error()))
	}
	return err
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "pexpress",
		Version:       version,
		Short:         "Build and deploy Python services as content-addressed trees",
		Long:          rootHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			err := a.check()
			if err == nil {
				a.tracing.begin(c, a.ui.warn)
			}
			return err
		},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, c.CommandPath())}
	})
	f := root.PersistentFlags()
	f.StringVarP(&a.dir, "directory", "C", ".", "the project's directory")
	f.StringVar(&a.cache, "cache", "",
		"address of the cache: "+open.Forms+" [$PEXPRESS_CACHE] (default $PEXPRESS_HOME/cache)")
	f.StringVar(&a.output, "output", "text", "text, or json: one event a line on standard output")
	lock := a.lockCommand()
	lock.AddCommand(a.lockSelectCommand())
	root.AddCommand(lock, a.buildCommand(), a.explainCommand(), a.deployCommand(), a.devCommand(), a.statusCommand(),
		a.diffCommand(), a.rollbackCommand(), a.restartCommand(), a.removeCommand(), a.channelCommand(), a.ciCommand(), a.pluginCommand(), a.logsCommand(), a.exportCommand(), a.runCommand(), a.cacheCommand(), a.composeCommand(),
		a.digestCommand(), a.keyCommand(), a.sbomCommand(), builderCommand())
	return root
}

// checkOutput completes the flags that commands have which need neither home nor cache.
func (a *app) checkOutput() error {
	switch a.output {
	case "text":
	case "json":
		a.ui.json = true
	default:
		return usageError{fmt.Errorf("--output is text or json, not %q", a.output)}
	}
	return nil
}

// check completes the global flags once they are parsed.
func (a *app) check() error {
	if err := a.checkOutput(); err != nil {
		return err
	}
	home, err := homeDir()
	if err != nil {
		return err
	}
	a.home = home
	a.cache = first(a.cache, os.Getenv("PEXPRESS_CACHE"))
	a.cacheChosen = a.cache != ""
	if !a.cacheChosen {
		a.cache = filepath.Join(home, "cache")
	}
	return nil
}

// homeDir is where pexpress keeps its cache and what it remembers between runs.
func homeDir() (string, error) {
	if h := os.Getenv("PEXPRESS_HOME"); h != "" {
		return filepath.Abs(h)
	}
	h, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for the cache (%w): set PEXPRESS_HOME", err)
	}
	return filepath.Join(h, "pexpress"), nil
}

// targetFlags adds the flags that choose what is built for.
func (a *app) targetFlags(c *cobra.Command) {
	c.Flags().StringVar(&a.python, "python", "", "Python version to build for, such as 3.11 (default: the project's)")
	c.Flags().StringVar(&a.platform, "platform", "", "platform tag to build for (default: the project's, else manylinux_2_28_x86_64)")
}
