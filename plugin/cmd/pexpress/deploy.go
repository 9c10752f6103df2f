package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/plugin/build"
	"github.com/pexpress/pexpress/plugin/project"
)

func (a *app) deployCommand() *cobra.Command {
	var to, listen, descriptor string
	var from []string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "deploy [LOCATION... | --descriptor FILE]",
		Short: "Build, and move a codeserver's traffic to the new version",
		Long: `Build each location (all, if none is named) and have the codeserver serve it. The codeserver fetches what it lacks
from the cache, starts the new version beside the old one, and moves traffic when the new one is ready. If it does not
become ready the old version goes on serving, and the error shows the last lines of the new one's log.

The codeserver reads the same cache: give both the same address.

With --descriptor nothing is built: the trees are those that a build tool has made and 'pexpress compose describe'
described. Their files must be in the cache, or come from the directories that --from names.`,
		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			if descriptor != "" || len(from) > 0 {
				return a.deployDescriptor(c.Context(), descriptorRequest{descriptor, from, args, to, listen, timeout})
			}
			return a.with(c.Context(), func(s *session) error {
				return s.deploy(c.Context(), args, to, listen, timeout)
			})
		},
	}
	serverFlag(c, &to)
	c.Flags().StringVar(&listen, "listen", "", "address that the location answers on (default: as before, or a free port)")
	c.Flags().DurationVar(&timeout, "ready-timeout", time.Minute, "how long the new version may take to become ready")
	c.Flags().StringVar(&descriptor, "descriptor", "", "deploy what this file describes, by digest")
	c.Flags().StringSliceVar(&from, "from", nil, "`DEPS_DIR,SOURCE_DIR` of a descriptor's trees, for files that the cache lacks")
	a.targetFlags(c)
	return c
}

func serverFlag(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "to", "",
		"address of the codeserver: unix:///socket or host:port [$PEXPRESS_CODESERVER] (default $PEXPRESS_HOME/codeserver.sock)")
}

// dial connects to a codeserver: the one that is named, else the project's, else the one of $PEXPRESS_HOME.
func (a *app) dial(ctx context.Context, to string) (*client.Client, error) {
	if to = first(to, os.Getenv("PEXPRESS_CODESERVER")); to == "" {
		if p, err := project.Load(a.dir); err == nil {
			to = p.Codeserver
		}
	}
	if to == "" {
		to = "unix://" + filepath.Join(a.home, "codeserver.sock")
	}
	c, err := client.Dial(ctx, to)
	if err != nil {
		return nil, unavailableError{fmt.Errorf("codeserver %s: %w", to, err)}
	}
	return c, nil
}

func (s *session) deploy(ctx context.Context, names []string, to, listen string, timeout time.Duration) error {
	locs, err := s.locations(names)
	if err != nil {
		return err
	}
	if listen != "" && len(locs) > 1 {
		return usageError{errors.New("--listen is for one location: name it")}
	}
	c, err := s.app.dial(ctx, to)
	if err != nil {
		return err
	}
	defer c.Close()
	// One location's failure is no reason to leave the others where they are.
	var errs []error
	for _, loc := range locs {
		if err := s.deployLocation(ctx, c, loc, listen, timeout); err != nil {
			errs = append(errs, fmt.Errorf("location %s: %w", loc.Name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (s *session) deployLocation(ctx context.Context, c *client.Client, loc *project.Location, listen string, timeout time.Duration) error {
	start := time.Now()
	if err := loc.CheckEntry(); err != nil {
		return inputError{err}
	}
	last := s.lastPlan(loc.Name)
	b, err := s.buildLocation(ctx, loc)
	if err != nil {
		return err
	}
	if err := s.reportChange(ctx, last, b); err != nil {
		return err
	}
	stream, err := c.Deploy(ctx, &codeserverpb.DeployRequest{
		Location:     loc.Name,
		Spec:         b.spec(),
		ReadyTimeout: durationpb.New(timeout),
		Listen:       first(listen, loc.Listen),
	})
	if err != nil {
		return deployError(err)
	}
	err = s.app.follow(stream, start)
	if status.Code(err) == codes.NotFound {
		return unavailableError{err} // of the trees: those were just built, into another cache
	}
	return err
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

// reportChange says what of source.pex differs from the last build of this checkout.
func (s *session) reportChange(ctx context.Context, last lastPlan, b *built) error {
	if last.SourceRoot.IsZero() || last.SourceRoot == b.source.Root {
		return nil
	}
	var after *merkle.Tree
	before, err := merkle.Load(ctx, s.cas, last.SourceRoot)
	if err == nil {
		after, err = merkle.Load(ctx, s.cas, b.source.Root)
	}
	if errors.Is(err, cache.ErrNotFound) {
		return nil // one of them was evicted: there is nothing to compare
	}
	if err != nil {
		return err
	}
	changes := build.Diff(before, after)
	n, bytes := build.NewDirectories(before, after)
	text := "source.pex differs from the last build in:"
	for _, c := range changes {
		text += fmt.Sprintf("\n  %-8s %s (%s)", c.Kind, c.Path, size(c.Size))
	}
	text += fmt.Sprintf("\n  and %s (%s)", count(n, "Directory"), size(bytes))
	s.app.ui.event("changed", map[string]any{"files": changes, "directories": n, "directory_bytes": bytes}, "%s", text)
	return nil
}

// eventStream is the answer to Deploy and to Rollback.
type eventStream interface {
	Recv() (*codeserverpb.DeployEvent, error)
}

// follow reports a deploy's events until the version serves.
func (a *app) follow(stream eventStream, start time.Time) error {
	served := false
	for {
		ev, err := stream.Recv()
		if err == io.EOF {
			if !served {
				return unavailableError{errors.New("the codeserver ended the deploy without a word: see its log")}
			}
			return nil
		}
		if err != nil {
			return deployError(err)
		}
		if st := ev.GetStage(); st != nil {
			a.reportStage(st)
		}
		if d := ev.GetDeployed(); d != nil {
			served = true
			a.reportDeployed(d, time.Since(start))
		}
	}
}

func (a *app) reportStage(st *codeserverpb.Stage) {
	text := fmt.Sprintf("%-14s %9s", st.GetName(), took(st.GetTook().AsDuration()))
	if st.GetFetchedBlobs() > 0 {
		text += fmt.Sprintf("  fetched %s, %s", count(st.GetFetchedBlobs(), "blob"), size(st.GetFetchedBytes()))
	}
	a.ui.event("stage", map[string]any{
		"stage": st.GetName(), "milliseconds": milliseconds(st.GetTook().AsDuration()),
		"fetched_blobs": st.GetFetchedBlobs(), "fetched_bytes": st.GetFetchedBytes(),
	}, "%s", text)
}

func (a *app) reportDeployed(d *codeserverpb.Deployed, total time.Duration) {
	l := d.GetLocation()
	how := "serving"
	if d.GetUnchanged() {
		how = "unchanged, serving"
	}
	a.ui.event("deployed", map[string]any{
		"location": l.GetName(), "version": l.GetCurrent(), "address": l.GetAddress(),
		"unchanged": d.GetUnchanged(), "milliseconds": milliseconds(total),
	}, "%-14s %9s  %s %s at %s", "deployed", took(total), how, l.GetName()+"@"+short(l.GetCurrent()), l.GetAddress())
}

// short abbreviates a version's name.
func short(version string) string {
	if len(version) > 12 {
		return version[:12]
	}
	return version
}

// answer is a codeserver's error: its words for people, its status for the code.
type answer struct{ st *status.Status }

func (a *answer) Error() string { return a.st.Message() }

// GRPCStatus lets status.Code find the code.
func (a *answer) GRPCStatus() *status.Status { return a.st }

// deployError sorts a codeserver's answer by what the user can do.
func deployError(err error) error {
	st := status.Convert(err)
	msg := &answer{st}
	switch st.Code() {
	case codes.FailedPrecondition:
		return notReadyError{msg}
	case codes.InvalidArgument, codes.NotFound:
		return inputError{msg}
	case codes.Unavailable, codes.Aborted:
		return unavailableError{fmt.Errorf("codeserver: %w", msg)}
	case codes.Canceled:
		return context.Canceled
	}
	return fmt.Errorf("codeserver: %w (%s)", msg, st.Code())
}
