package codeserver

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestRemove removes a location with an answer under way, which ends, and takes the name again.
func TestRemove(t *testing.T) {
	h := newHost(t)
	d := h.deploy(h.spec(webApp("one")))
	address := d.GetLocation().GetAddress()
	resp, err := http.Get("http://" + address + "/slow")
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = h.Client.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "web"})
	require.NoError(t, err)
	list, err := h.Client.List(t.Context(), &codeserverpb.ListRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetLocations())
	_, err = get(address, "/")
	require.ErrorContains(t, err, "refused", "the address is free")
	require.NoError(t, h.s.retain(), "what the answer under way needs stays")
	trees, err := filepath.Glob(filepath.Join(h.opts.State, "store", "trees", "*-source"))
	require.NoError(t, err)
	require.Len(t, trees, 1)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("one", 40), string(b))
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 0 }, "its process ends")
	require.NoError(t, h.s.retain())
	require.NoFileExists(t, trees[0])

	_, err = h.Client.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "web"})
	require.Equal(t, codes.NotFound, status.Code(err), "%v", err)
	h.restart()
	list, err = h.Client.List(t.Context(), &codeserverpb.ListRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetLocations(), "a restart does not bring it back")
	d = h.deploy(h.spec(webApp("two")))
	require.Equal(t, "two", h.get(d, "/"))
}

// TestIfCurrent changes a location only if it serves what the caller has seen.
func TestIfCurrent(t *testing.T) {
	h := newHost(t)
	req := webRequest(h.spec(webApp("one")))
	req.IfCurrent = proto.String("")
	first, err := h.try(req)
	require.NoError(t, err)
	req = webRequest(h.spec(webApp("two")))
	req.IfCurrent = proto.String("")
	require.Contains(t, h.refused(codes.Aborted, req), "another deploy")
	require.Equal(t, "one", h.get(first, "/"))
	req.IfCurrent = proto.String(first.GetLocation().GetCurrent())
	second, err := h.try(req)
	require.NoError(t, err)
	require.Equal(t, "two", h.get(second, "/"))
	_, err = h.Client.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "web", IfCurrent: req.IfCurrent})
	require.Equal(t, codes.Aborted, status.Code(err), "%v", err)
	rollback := func(from string) (*codeserverpb.DeployEvent, error) {
		stream, err := h.Client.Rollback(t.Context(), &codeserverpb.RollbackRequest{Location: "web", IfCurrent: &from})
		require.NoError(t, err)
		return stream.Recv()
	}
	_, err = rollback(first.GetLocation().GetCurrent())
	require.Equal(t, codes.Aborted, status.Code(err), "%v", err)
	require.Equal(t, "two", h.get(second, "/"))
	require.Nil(t, h.s.messages("web")[0].GetFailure(), "it was not begun")
	_, err = rollback(second.GetLocation().GetCurrent())
	require.NoError(t, err)
	await(t, second.GetLocation().GetAddress(), "one")
}

// TestOutputs deploys a version with a further tree, which its process finds by a variable and retention keeps.
func TestOutputs(t *testing.T) {
	h := newHost(t)
	spec := h.spec(map[string]string{"app/__init__.py": "", "app/__main__.py": strings.ReplaceAll(webMain,
		"from app.word import WORD", `WORD = open(os.environ["PEXPRESS_OUTPUT_MY_ASSETS"] + "/css/app.css").read()`)},
		func(s *codeserverpb.VersionSpec) {
			s.Outputs = map[string]*repb.Digest{"my-assets": tree(t, h.cas, map[string]string{"css/app.css": "body{}"}).Proto()}
		})
	d := h.deploy(spec)
	require.Equal(t, "body{}", h.get(d, "/"))
	require.NoError(t, h.s.retain())
	kept, err := filepath.Glob(filepath.Join(h.opts.State, "store", "trees", "*-output"))
	require.NoError(t, err)
	require.Len(t, kept, 1, "retention keeps it")
	h.restart()
	await(t, d.GetLocation().GetAddress(), "body{}")
	dirs, err := filepath.Glob(filepath.Join(h.opts.State, "store", "trees", "*-output"))
	require.NoError(t, err)
	require.Len(t, dirs, 1)
	_, err = os.Stat(filepath.Join(dirs[0], "css", "app.css"))
	require.NoError(t, err)

	bad := proto.CloneOf(spec)
	bad.Outputs["A b"] = bad.Outputs["my-assets"]
	require.Contains(t, h.refused(codes.InvalidArgument, webRequest(bad)), "no name for an output")
}
