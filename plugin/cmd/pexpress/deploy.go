package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/plugin/build"
	"github.com/pexpress/pexpress/plugin/project"
)

func (a *app) deployCommand() *cobra.Command {
	var to, descriptor string
	var from []string
	var opts deployOptions
	var roll rollout
	var timings bool
	c := &cobra.Command{
		Use:   "deploy [LOCATION... | --descriptor FILE]",
		Short: "Build, and move a codeserver's traffic to the new version",
		Long: `Build each location (all, if none is named) and have the codeserver serve it. The codeserver fetches what it lacks
from the cache, starts the new version beside the old one, and moves traffic when the new one is ready. If it does not
become ready the old version goes on serving, and the error shows the last lines of the new one's log. Several locations
switch together: when one of them does not become ready, or cannot be built, all stay as they are.

With --canary the new version gets that share of the requests first. The command waits until the trial is over; it fails,
and the old version has all requests again, when the new one fails more of them, or when the command is ended before.

A version that serves already is left as it is; 'pexpress restart' starts another process of it.

The codeserver reads the same cache: give both the same address.

With --to A,B,C all is built once and deployed to these codeservers in that order, --window of them at a time. When one
fails no other is begun, and the command says which of them has which version.

With --descriptor nothing is built: the trees are those that a build tool has made and 'pexpress compose describe'
described. Their files must be in the cache, or come from the directories that --from names.`,
		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			if err := opts.trial.check(c); err != nil {
				return err
			}
			hosts, err := roll.hosts(first(to, os.Getenv("PEXPRESS_CODESERVER")))
			if err != nil {
				return err
			}
			if descriptor != "" || len(from) > 0 {
				if len(hosts) > 0 {
					return usageError{errors.New("several codeservers are for what is built here: deploy a --descriptor to one after the other")}
				}
				if opts.trial.percent != 0 {
					return usageError{errors.New("--canary is for a location that is built here, not for --descriptor")}
				}
				if timings {
					return usageError{errors.New("--timings is for what is built here, not for --descriptor")}
				}
				return a.deployDescriptor(c.Context(), descriptorRequest{descriptor, from, args, to, opts})
			}
			return a.with(c.Context(), func(s *session) error {
				a.timings.mark("open")
				if len(hosts) > 0 {
					if timings {
						return usageError{errors.New("--timings is for one codeserver")}
					}
					locs, err := s.deployLocations(args, opts)
					if err != nil {
						return err
					}
					return s.deployFleet(c.Context(), hosts, roll, func() ([]*codeserverpb.DeployRequest, error) {
						return s.deployRequests(c.Context(), locs, opts)
					})
				}
				return s.deploy(c.Context(), args, to, opts, timings)
			})
		},
	}
	serverFlag(c, &to)
	c.Flags().StringVar(&opts.listen, "listen", "", "address that the location answers on (default: as before, or a free port)")
	c.Flags().DurationVar(&opts.timeout, "ready-timeout", time.Minute, "how long the new version may take to become ready; once more as long when it is started by itself because it was not, forked, and where files of dependencies were damaged")
	c.Flags().BoolVar(&timings, "timings", false, "show how long each step has taken, from the start of the command to the first answer")
	opts.trial.flags(c)
	roll.flags(c)
	c.Flags().StringVar(&descriptor, "descriptor", "", "deploy what this file describes, by digest")
	c.Flags().StringSliceVar(&from, "from", nil, "`DEPS_DIR,SOURCE_DIR` of a descriptor's trees, for files that the cache lacks")
	a.signFlag(c)
	a.targetFlags(c)
	return c
}

// deployOptions are how versions are to be deployed.
type deployOptions struct {
	listen  string
	timeout time.Duration
	trial   canary
}

func serverFlag(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "to", "",
		"address of the codeserver: unix:///socket, host:port or grpcs://host:port [$PEXPRESS_CODESERVER] (default $PEXPRESS_HOME/codeserver.sock)")
}

// dial connects to a codeserver: the one that is named, else the project's, else the one of $PEXPRESS_HOME.
func (a *app) dial(ctx context.Context, to string) (*client.Client, error) {
	hint := func() string { return "" }
	if to = first(to, os.Getenv("PEXPRESS_CODESERVER")); to == "" {
		p, err := project.Load(a.dir)
		if err != nil {
			return nil, inputError{err} // it may name another codeserver
		}
		if p.Codeserver != "" {
			to, hint = p.Codeserver, func() string { return " (the configuration in " + p.Dir + " names it)" }
		}
	}
	if to == "" {
		to, hint = "unix://"+filepath.Join(a.home, "codeserver.sock"), a.otherServers
	}
	c, err := client.Dial(ctx, to)
	if err != nil {
		return nil, unavailableError{fmt.Errorf("codeserver %s: %w%s", to, err, hint())}
	}
	return c, nil
}

func (s *session) deploy(ctx context.Context, names []string, to string, opts deployOptions, timings bool) (err error) {
	locs, err := s.deployLocations(names, opts)
	if err != nil {
		return err
	}
	c, err := s.app.dial(ctx, to)
	if err != nil {
		return err
	}
	defer c.Close()
	defer func() {
		if err != nil && timings {
			s.app.timings.failed()
			s.app.showTimings("its failure", true)
		}
	}()
	start := time.Now()
	reqs, err := s.deployRequests(ctx, locs, opts)
	if err != nil {
		return err
	}
	go s.builders.close() //nolint:errcheck // closing the session says so: the builder ends while the codeserver works
	err = withServed(ctx, c, locationsOf(reqs), s.sendDeploy(ctx, c, reqs, start))
	if err != nil && len(reqs) == 1 {
		return fmt.Errorf("location %s: %w", reqs[0].GetLocation(), err)
	}
	if err == nil && timings {
		err = s.app.reportTimings(ctx, reqs)
	}
	return err
}

// locationsOf returns the names of what is deployed.
func locationsOf(reqs []*codeserverpb.DeployRequest) []string {
	names := make([]string, len(reqs))
	for i, req := range reqs {
		names[i] = req.GetLocation()
	}
	return names
}

// deployLocations returns the named locations, all if there are none, if they can be deployed so.
func (s *session) deployLocations(names []string, opts deployOptions) ([]*project.Location, error) {
	locs, err := s.locations(names)
	if err != nil {
		return nil, err
	}
	if opts.listen != "" && len(locs) > 1 {
		return nil, usageError{errors.New("--listen is for one location: name it")}
	}
	if opts.trial.percent != 0 && len(locs) > 1 {
		return nil, usageError{errors.New("--canary is for one location: name it")}
	}
	for _, loc := range locs {
		if err := s.checkEntry(loc); err != nil {
			return nil, err
		}
	}
	return locs, nil
}

// deployRequests builds locations, and returns what is to be asked of the codeserver.
func (s *session) deployRequests(ctx context.Context, locs []*project.Location, opts deployOptions) ([]*codeserverpb.DeployRequest, error) {
	var err error
	s.several = len(locs) > 1
	reqs := make([]*codeserverpb.DeployRequest, len(locs))
	for i, loc := range locs {
		if reqs[i], err = s.deployRequest(ctx, loc, opts.listen, opts.timeout); err != nil {
			return nil, fmt.Errorf("location %s: %w", loc.Name, err)
		}
	}
	if len(reqs) == 1 {
		reqs[0].Canary = opts.trial.message()
	}
	return reqs, nil
}

// entry converts a location's configuration to the codeserver's words.
func entry(loc *project.Location, roots []string) *codeserverpb.Entry {
	e := &codeserverpb.Entry{
		Preset: loc.Entry.Preset, Args: loc.Entry.Args, WorkingDirectory: loc.Entry.WorkingDirectory, SourceRoots: roots,
	}
	switch r := loc.Entry.Readiness; {
	case r.GRPCService != nil:
		e.Readiness = &codeserverpb.Readiness{Probe: &codeserverpb.Readiness_GrpcService{GrpcService: *r.GRPCService}}
	case r.HTTPPath != "":
		e.Readiness = &codeserverpb.Readiness{Probe: &codeserverpb.Readiness_HttpPath{HttpPath: r.HTTPPath}}
	case r.TCP:
		e.Readiness = &codeserverpb.Readiness{Probe: &codeserverpb.Readiness_Tcp{Tcp: true}}
	}
	return e
}

// changeTimeout is how long a deploy waits to say what has changed, which it does without.
const changeTimeout = 3 * time.Second

// reportChange says what of source.pex differs from the last build of this checkout.
func (s *session) reportChange(ctx context.Context, last lastPlan, b *built) {
	if last.SourceRoot.IsZero() || last.SourceRoot == b.source.Root {
		return
	}
	within, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	var after *merkle.Tree
	before, err := merkle.Load(within, s.cas, last.SourceRoot)
	if err == nil {
		after, err = merkle.Load(within, s.cas, b.source.Root)
	}
	if errors.Is(err, cache.ErrNotFound) {
		return // one of them was evicted: there is nothing to compare
	}
	if err != nil {
		if ctx.Err() == nil {
			s.app.ui.warn(fmt.Sprintf("what has changed in source.pex is not known: %v", err))
		}
		return
	}
	changes := build.Diff(before, after)
	n, bytes := build.NewDirectories(before, after)
	text := "source.pex differs from the last build in:"
	if s.several {
		text = "source.pex of " + b.location.Name + " differs from the last build in:"
	}
	for _, c := range changes {
		text += fmt.Sprintf("\n  %-8s %s (%s)", c.Kind, oneLine(c.Path), size(c.Size))
	}
	text += fmt.Sprintf("\n  and %s (%s)", count(n, "Directory"), size(bytes))
	s.app.ui.event("changed", map[string]any{"location": b.location.Name, "files": changes, "directories": n, "directory_bytes": bytes}, "%s", text)
}

func (a *app) reportStage(st *codeserverpb.Stage) {
	a.timings.stage(st)
	text := fmt.Sprintf("%-14s %9s", st.GetName(), took(st.GetTook().AsDuration()))
	if st.GetNote() != "" {
		text += "  " + st.GetNote()
	}
	if st.GetLocation() != "" {
		text += "  " + st.GetLocation()
	}
	if st.GetFetchedBlobs() > 0 {
		text += fmt.Sprintf("  fetched %s, %s", count(st.GetFetchedBlobs(), "blob"), size(st.GetFetchedBytes()))
	}
	a.ui.event("stage", map[string]any{
		"stage": st.GetName(), "note": st.GetNote(), "location": st.GetLocation(), "milliseconds": milliseconds(st.GetTook().AsDuration()),
		"fetched_blobs": st.GetFetchedBlobs(), "fetched_bytes": st.GetFetchedBytes(),
	}, "%s", text)
}

func (a *app) reportDeployed(d *codeserverpb.Deployed, total time.Duration) {
	l := d.GetLocation()
	how := "serving"
	if d.GetUnchanged() {
		how = "unchanged, serving"
	}
	if d.GetMoved() {
		how = "moved, serving"
	}
	a.ui.event("deployed", map[string]any{
		"location": l.GetName(), "version": l.GetCurrent(), "address": l.GetAddress(),
		"unchanged": d.GetUnchanged(), "moved": d.GetMoved(), "milliseconds": milliseconds(total),
	}, "%-14s %9s  %s %s at %s", "deployed", took(total), how, l.GetName()+"@"+short(l.GetCurrent()), l.GetAddress())
}

// short abbreviates a version's name.
func short(version string) string {
	if len(version) > 12 {
		return version[:12]
	}
	return version
}
