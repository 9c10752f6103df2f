package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/plugin/project"
)

// deployRequest builds a location, and returns what is to be asked of the codeserver.
func (s *session) deployRequest(ctx context.Context, loc *project.Location, listen string, timeout time.Duration) (*codeserverpb.DeployRequest, error) {
	if err := s.checkEntry(loc); err != nil {
		return nil, err
	}
	last := s.lastPlan(loc.Name)
	b, err := s.buildLocation(ctx, loc)
	if err != nil {
		return nil, err
	}
	s.later.Go(func() { s.reportChange(ctx, last, b) })
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
	s.later.Wait()
	defer s.app.showCanary(ctx, c, reqs[0])()
	err = s.app.follow(stream, start, len(reqs), reqs[0].GetReadyTimeout().AsDuration())
	if status.Code(err) == codes.NotFound {
		return unavailableError{err} // of the trees: those were just built, into another cache
	}
	return err
}

// eventStream is the answer to Deploy, Rollback and Restart.
type eventStream interface {
	Recv() (*codeserverpb.DeployEvent, error)
	Context() context.Context
}

// readEnd reads a deploy whose versions serve to its end, if the call is traced: its span is sent when the call has ended.
func readEnd(stream eventStream) {
	if !trace.SpanFromContext(stream.Context()).IsRecording() {
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-time.After(time.Second): // it serves, whatever the codeserver still has to do
	}
}

// errNoWord says that a deploy has ended before a version served.
var errNoWord = unavailableError{errors.New("the codeserver ended the deploy without a word: see its log")}

// untilDeployed hands a deploy's steps on until a version serves.
func untilDeployed(stream eventStream, stage func(*codeserverpb.Stage)) (*codeserverpb.Deployed, error) {
	for {
		ev, err := stream.Recv()
		if err == io.EOF {
			return nil, errNoWord
		}
		if err != nil {
			return nil, deployError(err)
		}
		if st := ev.GetStage(); st != nil {
			stage(st)
		}
		if d := ev.GetDeployed(); d != nil {
			return d, nil
		}
	}
}

// follow reports a deploy's events until all versions serve, which are n. Nothing comes after that, and nobody but a trace waits for its end.
// Versions have the time of ready to become so.
func (a *app) follow(stream eventStream, start time.Time, n int, ready time.Duration) error {
	r := &readiness{app: a, limit: ready, pending: map[string]time.Time{}}
	defer r.close()
	for range n {
		d, err := untilDeployed(stream, func(st *codeserverpb.Stage) {
			a.reportStage(st)
			r.stage(st)
		})
		if err != nil {
			return err
		}
		l := d.GetLocation()
		a.addresses[l.GetName()] = l.GetAddress()
		a.reportDeployed(d, time.Since(start))
	}
	a.timings.deployed()
	readEnd(stream)
	return nil
}

// answer is a codeserver's error: its words for people, its status for the code.
type answer struct{ st *status.Status }

func (a *answer) Error() string { return a.st.Message() }

// GRPCStatus lets status.Code find the code.
func (a *answer) GRPCStatus() *status.Status { return a.st }

// deployError sorts a codeserver's answer by what the user can do.
func deployError(err error) error {
	st, server := status.Convert(err), "codeserver"
	var call *client.Error
	if errors.As(err, &call) {
		server += " " + call.Addr
	}
	msg := &answer{st}
	switch st.Code() {
	case codes.FailedPrecondition:
		return notReadyError{msg}
	case codes.InvalidArgument, codes.NotFound:
		return inputError{msg}
	case codes.Unavailable, codes.Unimplemented, codes.Aborted, codes.Unauthenticated, codes.PermissionDenied:
		msg.st = status.New(st.Code(), serverHint(st.Code(), st.Message()))
		return unavailableError{fmt.Errorf("%s: %w", server, msg)}
	case codes.Canceled:
		return context.Canceled
	}
	return fmt.Errorf("%s: %w (%s)", server, msg, st.Code())
}
