package main

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/plugin/project"
)

// deployRequest builds a location, and returns what is to be asked of the codeserver.
func (s *session) deployRequest(ctx context.Context, loc *project.Location, listen string, timeout time.Duration) (*codeserverpb.DeployRequest, error) {
	if err := loc.CheckEntry(); err != nil {
		return nil, inputError{err}
	}
	last := s.lastPlan(loc.Name)
	b, err := s.buildLocation(ctx, loc)
	if err != nil {
		return nil, err
	}
	if err := s.reportChange(ctx, last, b); err != nil {
		return nil, err
	}
	req := &codeserverpb.DeployRequest{
		Location: loc.Name, Spec: b.spec(), ReadyTimeout: durationpb.New(timeout), Listen: first(listen, loc.Listen),
	}
	err = s.app.signBuilt(ctx, req, b, s.project.Dir)
	s.app.timings.mark("describe")
	return req, err
}

// sendDeploy deploys one location, or several at once.
func (s *session) sendDeploy(ctx context.Context, c *client.Client, reqs []*codeserverpb.DeployRequest, start time.Time) error {
	var stream eventStream
	var err error
	if len(reqs) == 1 {
		stream, err = c.Deploy(ctx, reqs[0])
	} else {
		stream, err = c.DeployAll(ctx, &codeserverpb.DeployAllRequest{Deploys: reqs})
	}
	if err != nil {
		return deployError(err)
	}
	err = s.app.follow(stream, start)
	if status.Code(err) == codes.NotFound {
		return unavailableError{err} // of the trees: those were just built, into another cache
	}
	return err
}
