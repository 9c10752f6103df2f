package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// rollout says how a deploy goes through several codeservers.
type rollout struct {
	window       int
	allOrNothing bool
}

func (r *rollout) flags(c *cobra.Command) {
	c.Flags().IntVar(&r.window, "window", 1, "with several codeservers: how many are deployed to at a time")
	c.Flags().BoolVar(&r.allOrNothing, "all-or-nothing", false, "with several codeservers: when one fails, move those that had switched back")
}

// hosts returns the codeservers that --to names, none if there are not several.
func (r *rollout) hosts(to string) ([]string, error) {
	if !strings.Contains(to, ",") {
		return nil, nil
	}
	var all []string
	for _, h := range strings.Split(to, ",") {
		if h = strings.TrimSpace(h); h == "" || slices.Contains(all, h) {
			return nil, usageError{fmt.Errorf("--to %s names %q, which is empty or there twice", to, h)}
		}
		all = append(all, h)
	}
	if r.window < 1 {
		return nil, usageError{fmt.Errorf("--window %d: say how many codeservers are deployed to at a time, 1 or more", r.window)}
	}
	return all, nil
}

// member is one codeserver of a fleet.
type member struct {
	address string
	client  *client.Client
	before  map[string]string // version that a location served, "" for one that was not there
	now     map[string]string // nil if that could not be asked
	begun   bool
	result  string
	err     error
}

// fleet is one deploy to several codeservers.
type fleet struct {
	app      *app
	rollout  rollout
	reqs     []*codeserverpb.DeployRequest
	names    map[string]string // of the new versions, by location
	members  []*member
	mu       sync.Mutex // guards stopping
	stopping bool
}

// deployFleet builds once and deploys to the codeservers in order, a window of them at a time, until one fails.
func (s *session) deployFleet(ctx context.Context, hosts []string, r rollout, build func() ([]*codeserverpb.DeployRequest, error)) error {
	f := &fleet{app: s.app, rollout: r, names: map[string]string{}}
	// Before anything is built or switched: a host that is away is known now.
	for _, address := range hosts {
		c, err := s.app.dial(ctx, address)
		if err != nil {
			return fmt.Errorf("nothing is deployed: %w", err)
		}
		defer c.Close()
		f.members = append(f.members, &member{address: address, client: c, result: "not begun"})
	}
	var err error
	if f.reqs, err = build(); err != nil {
		return err
	}
	for _, req := range f.reqs {
		_, name, err := digest.Marshal(req.GetSpec())
		if err != nil {
			return err
		}
		f.names[req.GetLocation()] = name.Hash()
	}
	for _, m := range f.members {
		if m.before, err = f.serving(ctx, m); err != nil {
			return fmt.Errorf("nothing is deployed: codeserver %s: %w", m.address, err)
		}
	}
	f.roll(ctx)
	return f.end(ctx)
}

// roll deploys to one codeserver after the other, until one fails; those that were begun are waited for.
func (f *fleet) roll(ctx context.Context) {
	var wg sync.WaitGroup
	window := make(chan struct{}, f.rollout.window)
	for _, m := range f.members {
		window <- struct{}{}
		f.mu.Lock()
		stop := f.stopping || ctx.Err() != nil
		f.mu.Unlock()
		if stop {
			break
		}
		m.begun = true
		wg.Go(func() {
			defer func() { <-window }()
			if m.err = f.deploy(ctx, m); m.err != nil {
				m.result = "failed"
				f.mu.Lock()
				f.stopping = true
				f.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// deploy deploys to one codeserver.
func (f *fleet) deploy(ctx context.Context, m *member) error {
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stream eventStream
	var err error
	if len(f.reqs) == 1 {
		stream, err = m.client.Deploy(ctx, f.reqs[0])
	} else {
		stream, err = m.client.DeployAll(ctx, &codeserverpb.DeployAllRequest{Deploys: f.reqs})
	}
	if err != nil {
		return deployError(err)
	}
	m.result = "unchanged"
	for range f.reqs {
		d, err := untilDeployed(stream, f.stage(m))
		if status.Code(err) == codes.NotFound {
			return unavailableError{err} // of the trees: that codeserver reads another cache
		}
		if err != nil {
			return err
		}
		if !d.GetUnchanged() {
			m.result = "deployed"
		}
		l := d.GetLocation()
		f.app.ui.event("deployed", map[string]any{
			"host": m.address, "location": l.GetName(), "version": l.GetCurrent(), "address": l.GetAddress(),
			"unchanged": d.GetUnchanged(), "milliseconds": milliseconds(time.Since(start)),
		}, "%-14s %9s  %s serves %s at %s", m.result, took(time.Since(start)), m.address, l.GetName()+"@"+short(l.GetCurrent()), l.GetAddress())
	}
	readEnd(stream)
	return nil
}

// stage returns what reports the steps of one codeserver. A person is shown those that there is something to say about.
func (f *fleet) stage(m *member) func(*codeserverpb.Stage) {
	return func(st *codeserverpb.Stage) {
		text := ""
		if st.GetNote() != "" {
			text = "%-14s %9s  %s: %s"
		}
		f.app.ui.event("stage", map[string]any{
			"host": m.address, "stage": st.GetName(), "note": st.GetNote(), "location": st.GetLocation(), "milliseconds": milliseconds(st.GetTook().AsDuration()),
			"fetched_blobs": st.GetFetchedBlobs(), "fetched_bytes": st.GetFetchedBytes(),
		}, text, st.GetName(), took(st.GetTook().AsDuration()), m.address, st.GetNote())
	}
}

// serving returns the version that each location of the deploy serves.
func (f *fleet) serving(ctx context.Context, m *member) (map[string]string, error) {
	list, err := m.client.List(ctx, &codeserverpb.ListRequest{})
	if err != nil {
		return nil, deployError(err)
	}
	now := map[string]string{}
	for name := range f.names {
		now[name] = ""
	}
	for _, l := range list.GetLocations() {
		if _, ours := now[l.GetName()]; ours {
			now[l.GetName()] = l.GetCurrent()
		}
	}
	return now, nil
}
