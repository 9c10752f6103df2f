package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/cache/traces"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/plugin"
	"github.com/pexpress/pexpress/plugin/project"
)

// deploy builds a location and has it served, and shows how that went. It reports whether to try again soon.
func (d *dev) deploy(ctx context.Context, loc *project.Location, b batch) (again bool) {
	d.show.begin(loc.Name)
	ctx, span := d.app.tracing.traces.Tracer().Start(ctx, "pexpress dev: deploy")
	deployed, err := d.tryDeploy(ctx, loc, b)
	traces.End(span, err)
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		d.failed(ctx, loc, err)
		return passes(err)
	case deployed == nil:
		d.show.unchanged(loc.Name)
		return false
	}
	delete(d.wrong, loc.Name)
	l := deployed.GetLocation()
	d.show.outcome(loc.Name, "", "serving %s at %s  %s%s", short(l.GetCurrent()), l.GetAddress(), took(time.Since(b.began)), b.what(d.app.dir))
	return false
}

// mostTorn is how many builds in a row are not deployed because files changed meanwhile: what was built may be some of the old
// files and some of the new. The next turn is close.
const mostTorn = 3

// tryDeploy returns nil if the location is as it was deployed last, or is changing still.
func (d *dev) tryDeploy(ctx context.Context, loc *project.Location, b batch) (*codeserverpb.Deployed, error) {
	req, err := d.session.deployRequest(ctx, loc, "", d.opts.timeout)
	if err != nil {
		return nil, err
	}
	if d.torn < mostTorn && d.watcher.changing() {
		d.torn++
		return nil, nil
	}
	same := proto.Clone(req).(*codeserverpb.DeployRequest)
	same.Provenance = nil // says when it was made
	_, name, err := digest.Marshal(same)
	if err != nil {
		return nil, err
	}
	last := d.last[loc.Name]
	if last.digest == name.Hash() && !last.failed && d.wrong[loc.Name] {
		return d.again(ctx, loc, b), nil
	}
	if last.digest == name.Hash() && (!last.failed || !b.touched && d.torn == 0) {
		return nil, nil
	}
	d.last[loc.Name] = attempt{name.Hash(), true}
	// A stream that is not read to its end holds on until then.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.client.Deploy(ctx, req)
	if err != nil {
		return nil, deployError(err)
	}
	d.session.later.Wait()
	deployed, err := untilDeployed(stream, d.app.reportStage)
	if err == nil {
		d.app.reportDeployed(deployed, time.Since(b.began))
		d.last[loc.Name] = attempt{name.Hash(), false}
		readEnd(stream)
	}
	return deployed, err
}

// again returns what a location serves whose error has been undone, so that it is as it was deployed last; nil if that is not known.
func (d *dev) again(ctx context.Context, loc *project.Location, b batch) *codeserverpb.Deployed {
	l, err := d.served(ctx, loc)
	if err != nil || l.GetCurrent() == "" {
		return nil
	}
	deployed := &codeserverpb.Deployed{Location: l, Unchanged: true}
	d.app.reportDeployed(deployed, time.Since(b.began))
	return deployed
}

// served asks the codeserver for a location, which is nil if it has none of that name.
func (d *dev) served(ctx context.Context, loc *project.Location) (*codeserverpb.Location, error) {
	list, err := d.client.List(ctx, &codeserverpb.ListRequest{})
	if err != nil {
		return nil, err
	}
	return locationOf(list.GetLocations(), loc.Name), nil
}

// failed shows what is wrong, and what serves all the same.
func (d *dev) failed(ctx context.Context, loc *project.Location, err error) {
	d.wrong[loc.Name] = true
	l, lerr := d.served(ctx, loc)
	serving, address := l.GetCurrent(), l.GetAddress()
	if lerr != nil && status.Code(err) == codes.Unavailable {
		d.disconnect()
	}
	if errors.Is(err, plugin.ErrBuilder) {
		// It may be this process of it that is at fault: the next build starts another.
		_ = d.session.builders.close()
		d.session.builders = &builders{ui: d.app.ui}
	}
	err = d.app.cacheFailure(err)
	d.app.ui.event("failed", map[string]any{
		"location": loc.Name, "message": err.Error(), "exit_code": exitCode(err), "serving": serving, "address": address,
	}, "")
	if serving == "" {
		d.show.outcome(loc.Name, err.Error(), "failed, and no version serves")
		return
	}
	d.show.outcome(loc.Name, err.Error(), "failed; %s goes on serving at %s", short(serving), address)
}

// passes reports whether an error is of a kind that goes away by itself.
func passes(err error) bool {
	return exitCode(err) == exitUnavailable || errors.Is(err, merkle.ErrChanged)
}

// unchanged shows the line again that a location had before its last step.
func (d *display) unchanged(location string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.width != nil && d.settled[location] != "" {
		d.setLine(location, d.settled[location])
		d.draw("")
	}
}

// stopped has the line of a location say that it is not deployed, because of an error that is shown above.
func (d *display) stopped(location string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.width != nil {
		d.set(location, "not deployed: see above")
		d.draw("")
	}
}

// what says which files a batch is about.
func (b batch) what(dir string) string {
	if len(b.paths) == 0 {
		return ""
	}
	paths := slices.Sorted(maps.Keys(b.paths))
	for i, p := range paths {
		if rel, err := filepath.Rel(dir, p); err == nil && filepath.IsLocal(rel) {
			paths[i] = rel
		}
	}
	if len(paths) > 3 {
		return fmt.Sprintf("  %s and %d more", strings.Join(paths[:2], ", "), len(paths)-2)
	}
	return "  " + strings.Join(paths, ", ")
}

// changing reports whether something has changed since the last take.
func (w *watcher) changing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pending.paths) > 0
}

// reads reports whether builds read one of the files that a batch is about.
func (w *watcher) reads(b batch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p := range b.paths {
		if w.files == nil || w.files[p] || isSetting(filepath.Base(p)) {
			return true
		}
	}
	return false
}
