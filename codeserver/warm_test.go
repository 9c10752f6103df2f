package codeserver

import (
	"testing"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestForkedVersion deploys a second version, which is forked, a third one that asks not to be, and restarts the server,
// which has no process to fork from.
func TestForkedVersion(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	how := func(req *codeserverpb.DeployRequest) (stages []string, d *codeserverpb.Deployed) {
		stream, err := h.Client.Deploy(t.Context(), req)
		require.NoError(t, err)
		for d == nil {
			ev, err := stream.Recv()
			require.NoError(t, err)
			if name := ev.GetStage().GetName(); name == "start" || name == "fork" {
				stages = append(stages, name)
			}
			d = ev.GetDeployed()
		}
		h.s.zygotes.Wait()
		return stages, d
	}
	stages, _ := how(webRequest(h.spec(webApp("one"))))
	require.Equal(t, []string{"start"}, stages)
	stages, d := how(webRequest(h.spec(webApp("two"))))
	require.Equal(t, []string{"fork"}, stages)
	require.Equal(t, "two", h.get(d, "/"))
	stages, d = how(webRequest(h.spec(webApp("three"), func(s *codeserverpb.VersionSpec) {
		s.Env = map[string]string{warmVariable: "0"}
	})))
	require.Equal(t, []string{"start"}, stages)
	require.Equal(t, "three", h.get(d, "/"))
	h.restart()
	await(t, d.GetLocation().GetAddress(), "three")
	stages, d = how(webRequest(h.spec(webApp("four"))))
	require.Equal(t, []string{"start"}, stages)
	require.Equal(t, "four", h.get(d, "/"))
}
