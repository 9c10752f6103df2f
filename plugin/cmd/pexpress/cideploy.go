package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/plugin/ci"
	"github.com/pexpress/pexpress/plugin/project"
)

// serverAddress is the codeserver's, "" if none is named.
func (j *ciJob) serverAddress() string {
	to := first(j.opts.to, os.Getenv("PEXPRESS_CODESERVER"))
	if p, err := project.Load(j.app.dir); err == nil {
		to = first(to, p.Codeserver)
	}
	return to
}

// serve connects to the codeserver, and returns the context for its calls.
func (j *ciJob) serve(ctx context.Context) (context.Context, *client.Client, error) {
	to := j.serverAddress()
	ctx, err := j.showServer(ctx, to)
	if err != nil {
		return nil, nil, unavailableError{err}
	}
	srv, err := j.app.dial(ctx, to)
	return ctx, srv, err
}

// deploy deploys what was built, unless a later push does. What the location serves is read before the branch's newest
// commit is: had a later push been deployed by then, this one is not the newest; if it is deployed after, the codeserver
// refuses this deploy, for the location does not serve any more what was read.
func (j *ciJob) deploy(ctx context.Context, loc *project.Location, b *built, l *ci.Location) error {
	if err := loc.CheckEntry(); err != nil {
		return inputError{err}
	}
	stages, fetched := len(l.Stages), l.Fetched
	return inTurn(ctx, turnTime, func() error {
		l.Stages, l.Fetched = l.Stages[:stages], fetched // those of the build: a deploy that was refused counts for nothing
		ctx, srv, err := j.serve(ctx)                    // with a token of now: the last try may be long ago
		if err != nil {
			return err
		}
		defer srv.Close()
		return j.tryDeploy(ctx, srv, loc, b, l)
	}, func(wait time.Duration) {
		j.say("%-14s %9s  another deploy of %s is under way", "wait", took(wait), l.As)
	})
}

func (j *ciJob) tryDeploy(ctx context.Context, srv *client.Client, loc *project.Location, b *built, l *ci.Location) error {
	list, err := srv.List(ctx, &codeserverpb.ListRequest{})
	if err != nil {
		return deployError(err)
	}
	current, known := "", map[string]bool{}
	for _, other := range list.GetLocations() {
		if other.GetName() == l.As {
			current = other.GetCurrent()
		}
		for _, v := range other.GetVersions() {
			known[v.GetSpec().GetDepsRoot().GetHash()] = true
		}
	}
	if newest, err := j.isNewest(ctx); err != nil || !newest {
		l.Kind = ci.Superseded
		return err
	}
	kind := ci.Decide(b.deps.Root.Hash(), known, false)
	req := &codeserverpb.DeployRequest{
		Location: l.As, Spec: b.spec(), ReadyTimeout: durationpb.New(j.opts.timeout), IfCurrent: &current,
	}
	if j.run.IsProduction() {
		req.Listen = loc.Listen
	}
	if err := j.app.signBuilt(ctx, req, b, j.app.dir); err != nil {
		return err
	}
	stream, err := srv.Deploy(ctx, req)
	if err != nil {
		return deployError(err)
	}
	if err := j.app.follow(stream, time.Now(), 1, j.opts.timeout); err != nil {
		if status.Code(err) == codes.NotFound {
			err = unavailableError{err} // of the trees: those were just built, into another cache
		}
		return err
	}
	if l.Kind != ci.Unchanged {
		l.Kind = kind
	}
	l.URL = j.urlOf(l)
	j.say("%-14s %9s  %s deploy of %s at %s", "deployed", "", l.Kind, l.As, l.URL)
	return j.unlessDeleted(ctx, srv, l)
}

// isNewest reports whether the run's commit is its branch's newest.
func (j *ciJob) isNewest(ctx context.Context) (bool, error) {
	head, err := ci.Head(ctx, j.app.dir, j.run.Branch)
	switch {
	case err != nil && j.opts.anyOrder:
		j.warn(err.Error() + "; deployed all the same, as --deploy-without-knowing-the-newest-push says")
		return true, nil
	case err != nil:
		return false, unavailableError{fmt.Errorf("%w; nothing is deployed, for a later push could be undone: check out with "+
			"credentials that are kept, or pass --deploy-without-knowing-the-newest-push", err)}
	case head == "":
		j.warn(fmt.Sprintf("the branch %s is gone: built, and not deployed", j.run.Branch))
	case head != j.run.Commit:
		j.warn(fmt.Sprintf("%s is at %.12s by now: %.12s is built, and not deployed", j.run.Branch, head, j.run.Commit))
	}
	return head == j.run.Commit, nil
}

// unlessDeleted removes what was just deployed if its branch was deleted meanwhile: the run that removes the branch's
// deployments may have been before this one.
func (j *ciJob) unlessDeleted(ctx context.Context, srv *client.Client, l *ci.Location) error {
	if j.run.IsProduction() {
		return nil
	}
	if head, err := ci.Head(ctx, j.app.dir, j.run.Branch); err != nil || head != "" {
		return nil //nolint:nilerr // it could be asked for a moment ago; then the run for the deleted branch is there to come
	}
	_, err := srv.Remove(ctx, &codeserverpb.RemoveRequest{Location: l.As, IfCurrent: &l.Version})
	switch status.Code(err) {
	case codes.OK:
		l.Kind, l.URL = ci.Removed, ""
		return nil
	case codes.NotFound, codes.Aborted:
		return nil
	}
	return deployError(err)
}

// linkBranch finds where the pull request's branch is deployed by its own pushes.
func (j *ciJob) linkBranch(ctx context.Context, l *ci.Location) {
	ctx, srv, err := j.serve(ctx)
	if err != nil {
		return // a link that is missing fails no build
	}
	defer srv.Close()
	list, err := srv.List(ctx, &codeserverpb.ListRequest{})
	if err != nil {
		return
	}
	for _, other := range list.GetLocations() {
		if other.GetName() == l.As {
			l.Address = other.GetAddress()
			l.URL = j.urlOf(l)
		}
	}
}

func (j *ciJob) urlOf(l *ci.Location) string {
	return strings.NewReplacer("{location}", l.As, "{address}", l.Address, "{branch}", url.PathEscape(j.run.Branch)).Replace(j.opts.url)
}

// removeBranch removes all that was deployed from the run's branch.
func (j *ciJob) removeBranch(ctx context.Context) error {
	if j.run.IsProduction() {
		return inputErrorf("%s is the production branch: pexpress remove LOCATION ends what it deployed, pexpress ci does not", j.run.Branch)
	}
	if !j.run.Stopped {
		switch head, err := ci.Head(ctx, j.app.dir, j.run.Branch); {
		case err != nil:
			j.say("%s; the event says that the branch is deleted", ci.Plain(err.Error()))
		case head != "":
			j.warn(fmt.Sprintf("there is a branch %s again: its deployments stay", j.run.Branch))
			return nil
		}
	}
	if j.serverAddress() == "" {
		j.warn("no codeserver is named (PEXPRESS_CODESERVER or --to): nothing is removed")
		return nil
	}
	ctx, srv, err := j.serve(ctx)
	if err != nil {
		return err
	}
	defer srv.Close()
	list, err := srv.List(ctx, &codeserverpb.ListRequest{})
	if err != nil {
		return deployError(err)
	}
	suffix := ci.BranchSuffix(j.run.Repository, j.run.Branch)
	var errs []error
	for _, l := range list.GetLocations() {
		if !strings.HasSuffix(l.GetName(), suffix) {
			continue
		}
		gone := &ci.Location{Name: l.GetName(), As: l.GetName(), Kind: ci.Removed}
		j.report.Locations = append(j.report.Locations, gone)
		err := j.app.removeLocation(ctx, srv, l.GetName())
		switch {
		case status.Code(err) == codes.NotFound: // another job was faster
			gone.Kind = ci.Nothing
		case err != nil:
			gone.Kind, gone.Error = ci.Failed, err.Error()
			errs = append(errs, err)
		}
		j.say("%-14s %9s  %s", gone.Kind, "", l.GetName())
	}
	return errors.Join(errs...)
}
