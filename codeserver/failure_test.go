package codeserver

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestFailureIsKept: a location says why its last deploy failed, until one does not, and which version a rollback goes to.
func TestFailureIsKept(t *testing.T) {
	h := newHost(t)
	location := func() *codeserverpb.Location {
		list, err := h.List(t.Context(), &codeserverpb.ListRequest{})
		require.NoError(t, err)
		require.Len(t, list.GetLocations(), 1)
		return list.GetLocations()[0]
	}
	first := h.deploy(h.spec(webApp("one"))).GetLocation()
	require.Empty(t, first.GetPrevious())
	require.Nil(t, first.GetFailure())

	h.refused(codes.FailedPrecondition, webRequest(h.spec(map[string]string{"app.py": "raise RuntimeError('no good')"})))
	f := location().GetFailure()
	require.Contains(t, f.GetError(), "RuntimeError: no good")
	require.NotEqual(t, first.GetCurrent(), f.GetVersion())
	require.NotZero(t, f.GetTime().GetSeconds())
	require.NotEmpty(t, f.GetStages(), "the steps that it came through")

	other := ""
	h.refused(codes.Aborted, &codeserverpb.DeployRequest{Location: "web", Spec: h.spec(webApp("two")), IfCurrent: &other})
	require.Equal(t, f.GetVersion(), location().GetFailure().GetVersion(), "what was not begun is no news")

	h.deploy(h.spec(webApp("two")))
	l := location()
	require.Nil(t, l.GetFailure())
	require.Equal(t, first.GetCurrent(), l.GetPrevious())
	_, err := h.rollback("")
	require.NoError(t, err)
	require.Equal(t, first.GetCurrent(), location().GetCurrent())
}
