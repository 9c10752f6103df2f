package main

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// said is the answer of a codeserver that ends with an error.
type said struct {
	events []*codeserverpb.DeployEvent
	end    error
}

func (s *said) Recv() (*codeserverpb.DeployEvent, error) {
	if len(s.events) == 0 {
		return nil, s.end
	}
	e := s.events[0]
	s.events = s.events[1:]
	return e, nil
}

func (s *said) Context() context.Context { return context.Background() }

// TestUntilDeployed: a stream that ends early is no success, and an error keeps its code.
func TestUntilDeployed(t *testing.T) {
	step := &codeserverpb.DeployEvent{Event: &codeserverpb.DeployEvent_Stage{Stage: &codeserverpb.Stage{Name: "fork"}}}
	served := &codeserverpb.DeployEvent{Event: &codeserverpb.DeployEvent_Deployed{Deployed: &codeserverpb.Deployed{Unchanged: true}}}
	var steps []string
	stage := func(st *codeserverpb.Stage) { steps = append(steps, st.GetName()) }
	s := &said{[]*codeserverpb.DeployEvent{step, served, step}, io.EOF}
	d, err := untilDeployed(s, stage)
	require.NoError(t, err)
	require.True(t, d.GetUnchanged())
	require.Equal(t, []string{"fork"}, steps)
	_, err = untilDeployed(s, stage)
	require.ErrorContains(t, err, "without a word")
	require.Equal(t, exitUnavailable, exitCode(err))
	_, err = untilDeployed(&said{end: status.Error(codes.FailedPrecondition, "not ready")}, stage)
	require.EqualError(t, err, "not ready")
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
}

// TestFollow waits for as many versions as there are to be, and not for what comes after them.
func TestFollow(t *testing.T) {
	served := &codeserverpb.DeployEvent{Event: &codeserverpb.DeployEvent_Deployed{Deployed: &codeserverpb.Deployed{
		Location: &codeserverpb.Location{Name: "web", Address: "127.0.0.1:1"},
	}}}
	a := &app{ui: newUI(false, io.Discard, io.Discard), timings: newTimings(), addresses: map[string]string{}}
	s := &said{[]*codeserverpb.DeployEvent{served, served}, nil}
	require.NoError(t, a.follow(s, time.Now(), 1, time.Minute))
	require.Len(t, s.events, 1)
	require.Equal(t, map[string]string{"web": "127.0.0.1:1"}, a.addresses)
	require.ErrorContains(t, a.follow(&said{[]*codeserverpb.DeployEvent{served}, io.EOF}, time.Now(), 2, time.Minute), "without a word")
}

// TestReportStage tells what the codeserver says about a step.
func TestReportStage(t *testing.T) {
	st := &codeserverpb.Stage{Name: "canary", Note: "too few answers to judge it by: 3 of 20", Took: durationpb.New(5 * time.Second)}
	for asJSON, want := range map[bool]string{
		false: `^canary +5.00 s  too few answers to judge it by: 3 of 20\n$`,
		true:  `"note":"too few answers to judge it by: 3 of 20","stage":"canary"`,
	} {
		var out bytes.Buffer
		a := &app{ui: newUI(asJSON, &out, io.Discard), timings: newTimings()}
		a.reportStage(st)
		require.Regexp(t, want, out.String())
		require.Equal(t, "canary", a.timings.steps[1].Name)
		out.Reset()
		(&fleet{app: a}).stage(&member{address: "host:1"})(st)
		require.Contains(t, out.String(), "host:1")
		require.Contains(t, out.String(), "3 of 20")
	}
	var out bytes.Buffer
	a := &app{ui: newUI(false, &out, io.Discard), timings: newTimings()}
	(&fleet{app: a}).stage(&member{address: "host:1"})(&codeserverpb.Stage{Name: "ready"})
	require.Empty(t, out.String(), "of several codeservers only what there is something to say about is shown")
}
