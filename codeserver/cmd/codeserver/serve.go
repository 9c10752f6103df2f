package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/open"
	"github.com/pexpress/pexpress/codeserver"
	"github.com/pexpress/pexpress/codeserver/bytecode"
	"github.com/pexpress/pexpress/codeserver/sockets"
)

// version is the release that this is on the way to.
const version = "0.1.0-dev"

const rootHelp = `codeserver serves locations: each is a stable address, and versions that 'pexpress deploy' moves it to.

  codeserver serve --state DIR --cache ADDRESS --listen unix:///run/codeserver.sock

It reads trees from the cache that pexpress writes them to, keeps all that it serves in the state directory, and serves
the same again after a restart, also without the cache.

Exit status: 0 done; 1 something failed; 2 wrong usage.`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use: "codeserver", Version: version, Short: "Serve versions of Python projects", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true, DisableSuggestions: true, // --help lists the three commands
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(serveCommand(), stopCommand(), tokenCommand())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	c, err := root.ExecuteContextC(ctx)
	return asUsage(c, err)
}

// flags are what serve is told.
type flags struct {
	state, cache, listen string
	http                 string
	keep                 int
	drain, grace, warm   time.Duration
	adopt                time.Duration
	remote               bool
	config               string
	trusted              []string
	secrets, users       string
	bytecodeKey          string
	logFormat, logLevel  string
	channels             channelFlags
}

const serveHelp = `Serve until ended by a signal:

  SIGINT           ends all
  SIGTERM, SIGHUP  with --adopt-within leaves the versions to the next codeserver, without ends all
  SIGUSR2          with --adopt-within executes the program anew in this process, which takes over the versions and
                   the sockets: an upgrade, after which nobody was refused. A program that does not answer to
                   'serve --help' is refused, and this one goes on, as it does without --adopt-within`

func serveCommand() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve until ended by SIGTERM or SIGINT",
		Long:  serveHelp,
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return serve(c.Context(), f, c.ErrOrStderr()) },
	}
	c.Flags().StringVar(&f.state, "state", "", "directory that keeps what is served (required)")
	c.Flags().StringVar(&f.cache, "cache", "", "address of the cache, as for pexpress [$PEXPRESS_CACHE] (default $PEXPRESS_HOME/cache)")
	c.Flags().StringVar(&f.listen, "listen", "", "address of the control API: host:port, or unix:///socket that only this user can use (default $PEXPRESS_HOME/codeserver.sock)")
	c.Flags().StringVar(&f.http, "http", "", "address of the web page, host:port (default none); one that other machines reach needs --config with TLS")
	c.Flags().IntVar(&f.keep, "keep", 5, "versions of a location that are kept")
	c.Flags().DurationVar(&f.drain, "drain-timeout", time.Hour, "how long a replaced version may finish what it began")
	c.Flags().DurationVar(&f.warm, "keep-warm", 0, "how long the version before goes on after a switch, so that a rollback needs no start (default not at all)")
	c.Flags().DurationVar(&f.grace, "stop-grace", 10*time.Second, "time between SIGTERM and SIGKILL")
	c.Flags().DurationVar(&f.adopt, "adopt-within", 0, "how long versions go on without a codeserver, for the next one to take them over (default not at all)")
	c.Flags().StringVar(&f.secrets, "secrets", "", "file that says where the secrets of locations are; only its owner may read it")
	c.Flags().StringVar(&f.users, "users", "auto", "`RANGE` of ids, such as 60706-61183, for users that locations run as, each its own; none: all run as this one; auto: that range where this host allows")
	c.Flags().StringVar(&f.config, "config", "", "TOML file with TLS, tokens and who may do what through the control API")
	c.Flags().StringSliceVar(&f.trusted, "trusted-key", nil, "file of public keys: deploys that none of them has signed are refused (repeatable)")
	c.Flags().StringVar(&f.bytecodeKey, "bytecode-key", "", "file with a secret of the hosts that share the bytecode of wheels through the cache (default each makes its own)")
	c.Flags().StringVar(&f.logFormat, "log-format", "text", "of the log on standard error: text, or json for an object a line")
	c.Flags().StringVar(&f.logLevel, "log-level", "info", "what is logged: debug, info, warn or error")
	f.channels.add(c)
	c.Flags().BoolVar(&f.remote, "allow-unauthenticated-remote-access", false,
		"listen on addresses that other machines reach: whoever reaches the control API can run any code here")
	if err := c.MarkFlagRequired("state"); err != nil {
		panic(err) // there is no such flag
	}
	return c
}

// complete sets what was not said: the places in which pexpress looks if nothing is said to it either.
func (f *flags) complete() error {
	home := os.Getenv("PEXPRESS_HOME")
	if home == "" {
		dir, err := os.UserCacheDir()
		if err != nil && (f.cache == "" || f.listen == "") {
			return fmt.Errorf("no place for the cache and the socket (%w): set PEXPRESS_HOME, or give --cache and --listen", err)
		}
		home = filepath.Join(dir, "pexpress")
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return err
	}
	if f.cache = cmp.Or(f.cache, os.Getenv("PEXPRESS_CACHE"), filepath.Join(home, "cache")); f.listen == "" {
		f.listen = "unix://" + filepath.Join(home, "codeserver.sock")
		if err := os.MkdirAll(home, 0o755); err != nil {
			return err
		}
	}
	if err := open.Check(f.cache); err != nil {
		return usageError{err}
	}
	return nil
}

// hidden are the directories of this host that hold what is nobody's but the codeserver's.
func (f *flags) hidden() []string {
	if st, err := os.Stat(f.cache); err != nil || !st.IsDir() {
		return nil
	}
	dir, err := filepath.Abs(f.cache)
	if err != nil {
		return nil
	}
	return []string{dir}
}

// check refuses what makes no sense, before anything is opened.
func (f *flags) check() error {
	if f.keep < 1 {
		return usagef("--keep %d: the version that serves is kept in any case; say 1 or more", f.keep)
	}
	for _, d := range []struct {
		name string
		is   time.Duration
	}{{"keep-warm", f.warm}, {"adopt-within", f.adopt}, {"drain-timeout", f.drain}, {"stop-grace", f.grace}} {
		if d.is < 0 {
			return usagef("--%s %s: say 0 or more", d.name, d.is)
		}
	}
	return nil
}

// options returns how the codeserver is to work.
func (f *flags) options(spans *spans, log *slog.Logger) (o codeserver.Options, err error) {
	o = codeserver.Options{
		State: f.state, Keep: f.keep, DrainTimeout: f.drain, KeepWarm: f.warm, StopGrace: f.grace, AllowRemote: f.remote, Log: log,
		Secrets: f.secrets, OpenResults: opener(f.cache), Hidden: f.hidden(), AdoptWithin: f.adopt,
		Open: func(ctx context.Context) (cache.CAS, io.Closer, error) {
			cas, _, closer, err := open.Open(spans.With(ctx), f.cache)
			return cas, closer, err
		},
	}
	if o.Users, err = codeserver.ParseUsers(f.users); err != nil {
		return o, usagef("--users: %w", err)
	}
	if o.Verify, err = trust(f.trusted, log); err != nil {
		return o, err
	}
	if o.Channels, err = f.channels.read(f.cache); err != nil {
		return o, err
	}
	o.BytecodeKey, err = bytecodeKey(f.bytecodeKey)
	return o, err
}

func serve(ctx context.Context, f flags, stderr io.Writer) error {
	upgrades := make(chan os.Signal, 1)
	signal.Notify(upgrades, syscall.SIGUSR2)
	if err := errors.Join(f.complete(), f.check()); err != nil {
		return err
	}
	log, err := newLog(stderr, f.logFormat, f.logLevel)
	if err != nil {
		return err
	}
	guard, err := openGuard(f.config, f.listen, log)
	if err != nil {
		return err
	}
	spans, err := openTraces(ctx, log)
	if err != nil {
		return err
	}
	defer spans.close()
	opts, err := f.options(spans, log)
	if err != nil {
		return err
	}
	guard.users = opts.Users
	opts.Sockets = sockets.Inherit()
	web, err := openWeb(f.http, guard, opts.Sockets, log)
	if err != nil {
		return err
	}
	defer web.close()
	control, err := guard.listen(f, opts.Sockets)
	if err != nil {
		return err
	}
	s, err := codeserver.Open(opts)
	if err != nil {
		return errors.Join(err, control.Close())
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if err := web.serve(ctx, s, guard); err != nil {
		return errors.Join(err, control.Close(), s.Leave(ctx))
	}
	g := grpc.NewServer(slices.Concat(s.CallOptions(), guard.opts, spans.ServerOptions())...)
	s.Register(g)
	done := make(chan error, 1)
	go func() { done <- g.Serve(control) }()
	opts.Sockets.CloseRest(log)
	log.Info("serving", "control", f.listen, "state", f.state, "cache", f.cache)
	notify(log, daemon.SdNotifyReady)
	alive, dead := context.WithCancel(context.Background())
	defer dead()
	watchdog(alive, s, log)
	go awaitUpgrade(ctx, upgrades, f.adopt > 0, log, stop)
	select {
	case <-ctx.Done():
	case err = <-done:
	}
	return errors.Join(err, end(endedBy(ctx), s, f, guard, drain(g), opts.Sockets, log))
}

// drain has a server take no further calls, and returns what waits for those under way. They are told why they end by the
// codeserver's end; who does not take that in time is cut off.
func drain(g *grpc.Server) (wait func()) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		g.GracefulStop()
	}()
	return func() {
		select {
		case <-answered:
		case <-time.After(time.Second):
			g.Stop()
		}
	}
}

// bytecodeKey returns the key of those that bytecode is shared with, nil if no file is named.
func bytecodeKey(path string) (*bytecode.Key, error) {
	if path == "" {
		return nil, nil
	}
	return bytecode.ReadKey(path)
}

// end ends the codeserver in the way that a signal wants, nil if it ends for another reason. answered waits until those who have called
// know of it.
func end(why os.Signal, s *codeserver.Server, f flags, guard *guard, answered func(), set *sockets.Set, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), f.grace)
	defer cancel()
	log.Info("ending: requests under way are finished", "within", f.grace, "signal", why)
	switch {
	case why == syscall.SIGUSR2:
		notify(log, reloading())
		err := s.Leave(ctx)
		answered()
		if err != nil {
			return err
		}
		program, err := os.Executable()
		if err != nil {
			return err
		}
		return set.Exec(program, os.Args)
	case why != syscall.SIGINT && f.adopt > 0:
		notify(log, daemon.SdNotifyStopping)
		err := s.Leave(ctx)
		answered()
		return err
	}
	notify(log, daemon.SdNotifyStopping)
	err := s.Close(ctx)
	answered()
	if guard.socket != "" {
		err = errors.Join(err, os.Remove(guard.socket))
	}
	return err
}
