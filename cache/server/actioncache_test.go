package server_test

import (
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
)

func update(t *testing.T, s *served, ar *repb.ActionResult) error {
	_, err := s.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{
		InstanceName: "i", ActionDigest: of("action").Proto(), ActionResult: ar,
	})
	return err
}

func withTree(d *repb.Digest) *repb.ActionResult {
	return &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{Path: "out", TreeDigest: d}}}
}

func TestActionResults(t *testing.T) {
	s := serve(t)
	get := &repb.GetActionResultRequest{ActionDigest: of("action").Proto()}
	_, err := s.ac.GetActionResult(t.Context(), get)
	requireCode(t, codes.NotFound, err, of("action").Hash())
	want := &repb.ActionResult{ExitCode: 0, StdoutRaw: []byte("hello")}
	require.NoError(t, update(t, s, want))
	got, err := s.ac.GetActionResult(t.Context(), get)
	require.NoError(t, err)
	require.True(t, proto.Equal(want, got))

	requireCode(t, codes.InvalidArgument, update(t, s, nil), "no ActionResult")
	for _, d := range malformed {
		_, err := s.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: d})
		requireCode(t, codes.InvalidArgument, err, "invalid digest")
		_, err = s.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: d, ActionResult: want})
		requireCode(t, codes.InvalidArgument, err, "invalid digest")
	}
}

// TestTreesAreUnpacked uploads a Tree alone, as Bazel does, and loads the tree by its root Directory.
func TestTreesAreUnpacked(t *testing.T) {
	s := serve(t)
	tree := wide(t, memory.New(), 5)
	_, err := merkle.Load(t.Context(), s.store, tree.Root())
	require.Error(t, err)
	require.NoError(t, update(t, s, withTree(putMessage(t, s.store, tree.Proto()).Proto())))
	got, err := merkle.Load(t.Context(), s.store, tree.Root())
	require.NoError(t, err)
	require.Equal(t, tree.Root(), got.Root())

	require.NoError(t, update(t, s, &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{
		{Path: "out", RootDirectoryDigest: tree.Root().Proto()},
	}}), "an output directory without a Tree")
}

func TestHostileTrees(t *testing.T) {
	s := serve(t)
	f := &repb.FileNode{Name: "f", Digest: &repb.Digest{Hash: "x"}}
	lacking := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "d", Digest: of("gone").Proto()}}}
	for what, c := range map[string]struct {
		tree *repb.Digest
		code codes.Code
		says string
	}{
		"a digest that is none":       {putMessage(t, s.store, &repb.Tree{Root: &repb.Directory{Files: []*repb.FileNode{f}}}).Proto(), codes.InvalidArgument, "invalid digest"},
		"a Directory that is missing": {putMessage(t, s.store, &repb.Tree{Root: lacking}).Proto(), codes.FailedPrecondition, of("gone").Hash()},
		"no Tree at all":              {put(t, s.store, "no message").Proto(), codes.InvalidArgument, "is not a Tree"},
		"a Tree that is not there":    {of("gone").Proto(), codes.FailedPrecondition, "upload it first"},
		"no digest":                   {&repb.Digest{Hash: "x"}, codes.InvalidArgument, "invalid digest"},
		"far too large":               {&repb.Digest{Hash: of("x").Hash(), SizeBytes: 1 << 50}, codes.InvalidArgument, "larger than"},
	} {
		t.Run(what, func(t *testing.T) {
			requireCode(t, c.code, update(t, s, withTree(c.tree)), c.says)
			_, err := s.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: of("action").Proto()})
			requireCode(t, codes.NotFound, err, of("action").Hash())
		})
	}
	require.NoError(t, update(t, s, withTree(digest.Empty.Proto())), "the empty Tree is one")
}
