package main

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// lists is a codeserver that answers each List with the next of some lists, and with the last one from then on.
type lists struct {
	codeserverpb.CodeServerClient
	lists [][]*codeserverpb.Location
	err   error
}

func (l *lists) List(context.Context, *codeserverpb.ListRequest, ...grpc.CallOption) (*codeserverpb.ListResponse, error) {
	if l.err != nil {
		return nil, l.err
	}
	now := l.lists[0]
	if len(l.lists) > 1 {
		l.lists = l.lists[1:]
	}
	return &codeserverpb.ListResponse{Locations: now}, nil
}

// located is a location with versions in these states, of which the first is current.
func located(name string, states ...codeserverpb.State) *codeserverpb.Location {
	l := &codeserverpb.Location{Name: name, Address: "127.0.0.1:1", Current: "0123456789abcdef"}
	for i, s := range states {
		v := &codeserverpb.Version{Name: l.GetCurrent(), State: s}
		if i > 0 {
			v.Name = "other"
		}
		l.Versions = append(l.Versions, v)
	}
	return l
}

// TestWithServed: an error says what serves all the same, as far as that is known.
func TestWithServed(t *testing.T) {
	const ready, starting, failed = codeserverpb.State_READY, codeserverpb.State_STARTING, codeserverpb.State_FAILED
	up, tried := located("web", ready), located("web", ready, ready)
	tried.Canary = "other"
	notReady := deployError(status.Error(codes.FailedPrecondition, "not ready\nlog\n"))
	away := deployError(status.Error(codes.Unavailable, "gone"))
	for name, c := range map[string]struct {
		lists [][]*codeserverpb.Location
		of    []string
		err   error
		want  string
	}{
		"the old one":   {[][]*codeserverpb.Location{{up}}, []string{"web"}, notReady, "not ready\nlog\n0123456789ab goes on serving at 127.0.0.1:1"},
		"none":          {[][]*codeserverpb.Location{{}}, []string{"web"}, notReady, "not ready\nlog\nno version serves"},
		"several":       {[][]*codeserverpb.Location{{up}}, []string{"web", "api"}, notReady, "not ready\nlog\nweb: 0123456789ab goes on serving at 127.0.0.1:1; api: no version serves"},
		"one is down":   {[][]*codeserverpb.Location{{located("web", failed)}}, []string{"web"}, notReady, "not ready\nlog\n"},
		"called off":    {[][]*codeserverpb.Location{{located("web", ready, starting)}, {tried}, {up}}, []string{"web"}, context.Canceled, "context canceled\n0123456789ab serves at 127.0.0.1:1"},
		"another":       {nil, []string{"web"}, deployError(status.Error(codes.Aborted, "another deploy of web is under way")), "codeserver: another deploy of web is under way: run it again when that is done"},
		"another's end": {nil, []string{"web"}, deployError(status.Error(codes.Aborted, "web was changed")), "codeserver: web was changed"},
		"away":          {nil, []string{"web"}, away, away.Error()},
	} {
		err := withServed(t.Context(), &lists{lists: c.lists}, c.of, c.err)
		require.EqualError(t, err, c.want, name)
		require.ErrorIs(t, err, c.err, name)
		require.Equal(t, exitCode(c.err), exitCode(err), name)
	}
	require.NoError(t, withServed(t.Context(), &lists{}, []string{"web"}, nil))
	require.Equal(t, notReady, withServed(t.Context(), &lists{err: errors.New("no")}, []string{"web"}, notReady), "what serves is not known")
}
