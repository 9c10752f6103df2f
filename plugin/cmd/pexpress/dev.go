package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/client"
	"github.com/pexpress/pexpress/plugin/project"
)

func (a *app) devCommand() *cobra.Command {
	var to, secrets string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "dev [LOCATION...]",
		Short: "Deploy on each save, until interrupted",
		Long: `Watch the project and deploy its locations (all, if none is named) whenever something changes that source.pex or
deps.pex is made of. A version that does not become ready is shown with the end of its log, and the one before goes on
serving. What is saved while a deploy is under way is deployed right after.

It deploys to the codeserver of --to or $PEXPRESS_CODESERVER, else to the one of $PEXPRESS_HOME; if none answers there,
one is started, with the --secrets file if there is one, and ended with this command. The codeserver that the project's configuration names is not used: it is
where 'pexpress deploy' goes.`,
		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			to = first(to, os.Getenv("PEXPRESS_CODESERVER"))
			if to != "" && secrets != "" {
				return usageError{errors.New("--secrets is for the codeserver that dev starts: the one of --to or $PEXPRESS_CODESERVER has its own")}
			}
			return a.dev(c.Context(), devOptions{args, to, secrets, timeout})
		},
	}
	c.Flags().StringVar(&to, "to", "", "address of the codeserver: unix:///socket, host:port or grpcs://host:port [$PEXPRESS_CODESERVER] (default: that of $PEXPRESS_HOME, started if need be)")
	c.Flags().StringVar(&secrets, "secrets", "", "`file` that says where the values of secret-env are, for the codeserver that is started")
	c.Flags().DurationVar(&timeout, "ready-timeout", time.Minute, "how long a new version may take to become ready")
	a.targetFlags(c)
	return c
}

// devOptions are what 'pexpress dev' is told.
type devOptions struct {
	names   []string
	to      string
	secrets string
	timeout time.Duration
}

// dev is what goes on between two deploys: the watch, the cache, the builder process, the codeserver.
type dev struct {
	opts    devOptions
	app     *app // whose ui shows a build's steps in passing
	chosen  bool // the cache is the user's choice, not the project's
	show    *display
	watcher *watcher
	session *session
	client  *client.Client
	server  *ownServer
	last    map[string]attempt // by location
	wrong   map[string]bool    // locations of which an error is shown that came before their deploy
	said    bool               // what is watched
	torn    int                // builds in a row that were not deployed
}

// attempt is what was deployed last of a location.
type attempt struct {
	digest string
	failed bool
}

func (a *app) dev(ctx context.Context, opts devOptions) (err error) {
	w, err := newWatcher()
	if err != nil {
		return err
	}
	defer w.close()
	d := &dev{opts: opts, show: newDisplay(a.ui), chosen: a.cacheChosen, watcher: w, last: map[string]attempt{}, wrong: map[string]bool{}}
	quiet := *a
	quiet.ui = d.show.quiet()
	d.app = &quiet
	defer func() { err = errors.Join(err, d.close()) }()
	if abs, err := filepath.Abs(a.dir); err == nil {
		d.app.dir = abs
	}
	return d.run(ctx)
}

// Trouble that passes by itself is tried again.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// run deploys what changes until ctx ends, which is how it is meant to end.
func (d *dev) run(ctx context.Context) error {
	b, retry := batch{listing: true, began: time.Now()}, firstRetry
	for {
		again, err := d.turn(ctx, b)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // interrupted
		}
		if err != nil {
			return err
		}
		var timer <-chan time.Time
		if again {
			timer = time.After(retry)
			retry = min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		var ended chan struct{}
		if d.server != nil {
			ended = d.server.done
		}
		select {
		case <-d.watcher.ready:
			var lost error
			if b, lost = d.watcher.take(); lost != nil {
				d.show.warning("changes are missed: " + lost.Error())
			}
		case <-timer:
			b = batch{listing: true, began: time.Now()}
		case <-ended:
			d.show.say("server-ended", map[string]any{}, "the codeserver has ended with %s; another is started", d.server.cmd.ProcessState)
			b = batch{listing: true, began: time.Now()}
			d.disconnect()
		case <-ctx.Done():
			return nil
		}
	}
}

// turn deploys what a batch of changes has made different. It reports whether to try again before the next change. An
// error is one that no change of the project mends.
func (d *dev) turn(ctx context.Context, b batch) (again bool, err error) {
	if err := d.load(ctx); err != nil {
		return d.general(err), d.watch(ctx, true)
	}
	locs, err := d.session.locations(d.opts.names)
	if err != nil && !d.said {
		return false, err // a location's name is mistyped
	}
	if err != nil {
		return d.general(err), d.watch(ctx, true)
	}
	touched := d.watcher.reads(b)
	if b.listing {
		if err := d.watch(ctx, false); err != nil {
			return false, err
		}
	}
	b.touched = touched || d.watcher.reads(b) || len(b.paths) == 0
	if err := d.connect(ctx); err != nil {
		if d.opts.to == "" && d.server == nil {
			return false, unavailableError{err} // nobody answers, and there is none to start
		}
		d.general(unavailableError{err})
		return true, nil
	}
	torn := d.torn
	for _, loc := range locs {
		again = d.deploy(ctx, loc, b) || again
		if ctx.Err() != nil {
			return false, nil
		}
		if d.client == nil {
			return true, d.keep() // the codeserver is gone
		}
	}
	if d.torn == torn {
		d.torn = 0
	}
	return again, d.keep()
}

// load reads the project, which takes next to no time, and opens the session on the first call, or when the project's
// cache is another one.
func (d *dev) load(ctx context.Context) error {
	if d.session != nil {
		p, err := project.Load(d.app.dir)
		if err != nil {
			return inputError{err}
		}
		if p.Cache == d.session.project.Cache || d.chosen {
			d.session.project = p
			for _, w := range p.Warnings {
				d.app.ui.warn(w)
			}
			return nil
		}
		err = d.session.close()
		d.session = nil
		if err != nil {
			return err
		}
	}
	var err error
	d.session, err = d.app.openSession(ctx)
	return err
}

// keep saves what was learned of unchanged files, and has the next build know it.
func (d *dev) keep() error {
	if err := d.session.hasher.Save(); err != nil {
		return err
	}
	h, err := merkle.NewHasher(filepath.Join(d.app.stateDir(), "index"))
	if err != nil {
		return err
	}
	d.session.hasher = h
	return nil
}

// general shows an error that is of no one location, and reports whether it may pass by itself.
func (d *dev) general(err error) (again bool) {
	d.show.say("failed", map[string]any{"message": err.Error(), "exit_code": exitCode(err)}, "%s  %s",
		time.Now().Format(time.TimeOnly), d.app.cacheFailure(err))
	for name := range d.last {
		d.wrong[name] = true
		d.show.stopped(name)
	}
	return passes(err)
}

// connect returns when there is a codeserver to deploy to.
func (d *dev) connect(ctx context.Context) error {
	if d.client != nil {
		return nil
	}
	if d.opts.to != "" {
		c, err := d.app.dial(ctx, d.opts.to)
		d.client = c
		return err
	}
	socket := filepath.Join(d.app.home, "codeserver.sock")
	c, err := d.app.dial(ctx, "unix://"+socket)
	if err == nil && d.opts.secrets != "" {
		d.show.warning("a codeserver answers at " + socket + " already: it has the secrets that it was started with, not those of --secrets")
	}
	if err != nil {
		if d.server, err = d.app.startServer(socket, d.opts.secrets); err != nil {
			return err
		}
		if c, err = d.server.await(ctx, "unix://"+socket); err != nil {
			return err
		}
		d.show.say("started", map[string]any{"pid": d.server.cmd.Process.Pid, "log": d.server.log},
			"started a codeserver, whose log is %s", d.server.log)
	}
	d.client = c
	return nil
}

// disconnect forgets a codeserver that does not answer any more.
func (d *dev) disconnect() {
	if d.client != nil {
		_ = d.client.Close()
		d.client = nil
	}
	if d.server != nil {
		d.server.stop()
		d.server = nil
	}
	clear(d.last) // another one may serve something else
}

func (d *dev) close() error {
	d.disconnect()
	if d.session == nil {
		return nil
	}
	return d.session.close()
}
