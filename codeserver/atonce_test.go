package codeserver

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func (h *host) deployAll(reqs ...*codeserverpb.DeployRequest) (done []*codeserverpb.Deployed, stages map[string]bool, err error) {
	stream, err := h.DeployAll(h.t.Context(), &codeserverpb.DeployAllRequest{Deploys: reqs})
	require.NoError(h.t, err)
	stages = map[string]bool{}
	for {
		ev, err := stream.Recv()
		if err == io.EOF {
			return done, stages, nil
		}
		if err != nil {
			return done, stages, err
		}
		if d := ev.GetDeployed(); d != nil {
			done = append(done, d)
		} else {
			stages[ev.GetStage().GetLocation()+" "+ev.GetStage().GetName()] = true
		}
	}
}

func (h *host) request(location, word string) *codeserverpb.DeployRequest {
	return &codeserverpb.DeployRequest{Location: location, Spec: h.spec(webApp(word))}
}

// TestDeployAll deploys three locations at once: all, then none because one does not come up.
func TestDeployAll(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	done, stages, err := h.deployAll(h.request("c", "c1"), h.request("a", "a1"), h.request("b", "b1"))
	require.NoError(t, err)
	require.Len(t, done, 3)
	for i, name := range []string{"c", "a", "b"} {
		require.Equal(t, name, done[i].GetLocation().GetName(), "in the request's order")
		require.Equal(t, name+"1", h.get(done[i], "/"))
		require.True(t, stages[name+" ready"] && stages[name+" switch"], "%v", stages)
	}
	before, err := os.ReadFile(filepath.Join(h.opts.State, "state.json"))
	require.NoError(t, err)
	bad := h.request("b", "b2")
	app := webApp("b2")
	app["app/word.py"] = "raise SystemExit('broken on purpose')"
	bad.Spec = h.spec(app)
	_, _, err = h.deployAll(h.request("a", "a2"), bad, h.request("new", "new"))
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "location b: ")
	require.ErrorContains(t, err, "broken on purpose")
	for _, d := range done {
		require.Equal(t, d.GetLocation().GetName()+"1", h.get(d, "/"))
	}
	require.Len(t, h.s.messages(""), 3, "the new location is gone again")
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 3 }, "what came up is ended")
	after, err := os.ReadFile(filepath.Join(h.opts.State, "state.json"))
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))

	done, _, err = h.deployAll(h.request("a", "a2"), h.request("b", "b1"))
	require.NoError(t, err)
	require.False(t, done[0].GetUnchanged())
	require.True(t, done[1].GetUnchanged())
	require.Equal(t, "a2", h.get(done[0], "/"))
}

// TestDeployAllState has the one write of the state fail: no location moves.
func TestDeployAllState(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	done, _, err := h.deployAll(h.request("a", "a1"), h.request("b", "b1"))
	require.NoError(t, err)
	path := filepath.Join(h.opts.State, "state.json")
	require.NoError(t, os.Rename(path, path+".away"))
	require.NoError(t, os.MkdirAll(filepath.Join(path, "in the way"), 0o755))
	_, _, err = h.deployAll(h.request("a", "a2"), h.request("b", "b2"))
	require.ErrorContains(t, err, "keep the state")
	for _, d := range done {
		require.Equal(t, d.GetLocation().GetName()+"1", h.get(d, "/"))
		require.Equal(t, d.GetLocation().GetCurrent(), h.s.messages(d.GetLocation().GetName())[0].GetCurrent())
	}
	require.NoError(t, os.RemoveAll(path))
	require.NoError(t, os.Rename(path+".away", path))
}

func TestDeployAllRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	trial := h.request("b", "b")
	trial.Canary = &codeserverpb.Canary{Percent: 10, Duration: durationpb.New(1)}
	for name, reqs := range map[string][]*codeserverpb.DeployRequest{
		"no location":           nil,
		"deployed twice":        {h.request("a", "1"), h.request("a", "2")},
		"cannot have a canary":  {h.request("a", "1"), trial},
		"no name for a locatio": {h.request("a", "1"), h.request("../b", "1")},
	} {
		_, _, err := h.deployAll(reqs...)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
		require.ErrorContains(t, err, name)
	}
	// One location that another call deploys is enough to be refused; the other's turn is free again.
	_, release, err := h.s.claim(t.Context(), "b", true)
	require.NoError(t, err)
	_, _, err = h.deployAll(h.request("c", "1"), h.request("b", "1"), h.request("a", "1"))
	require.Equal(t, codes.Aborted, status.Code(err), "%v", err)
	release()
	_, _, err = h.deployAll(h.request("c", "1"), h.request("b", "1"), h.request("a", "1"))
	require.NoError(t, err)
}
