package server_test

import (
	"fmt"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// store puts a message under its digest by fn.
func store(t *testing.T, m *memory.Store, fn digest.Function, b []byte) digest.Digest {
	d := fn.FromBytes(b)
	require.NoError(t, cache.PutAll(t.Context(), m, []cache.Blob{{Digest: d, Data: b}}))
	return d
}

func storeDir(t *testing.T, m *memory.Store, fn digest.Function, dir *repb.Directory) digest.Digest {
	b, err := proto.Marshal(dir)
	require.NoError(t, err)
	return store(t, m, fn, b)
}

func dirNode(name string, d digest.Digest) *repb.DirectoryNode {
	return &repb.DirectoryNode{Name: name, Digest: d.Proto()}
}

// oddDirectory is a Directory with its fields in another order than we write them, and one that nobody knows.
func oddDirectory(t *testing.T) []byte {
	link, err := proto.Marshal(&repb.Directory{Symlinks: []*repb.SymlinkNode{{Name: "l", Target: "/abs"}}})
	require.NoError(t, err)
	file, err := proto.Marshal(&repb.Directory{Files: []*repb.FileNode{{Name: "z", Digest: of("z").Proto()}, {Name: "a", Digest: of("z").Proto()}}})
	require.NoError(t, err)
	return append(append(link, file...), 15<<3|2, 1, 'x')
}

// TestGetTreeOfAnyClient sends trees as they are, whatever they hold.
func TestGetTreeOfAnyClient(t *testing.T) {
	for _, fn := range digest.Functions {
		s := serve(t)
		odd := oddDirectory(t)
		child := store(t, s.store, fn, odd)
		empty, gone := storeDir(t, s.store, fn, &repb.Directory{}), fn.FromBytes([]byte("gone"))
		root := storeDir(t, s.store, fn, &repb.Directory{Directories: []*repb.DirectoryNode{
			dirNode("z", child), dirNode("y", empty), dirNode("x", gone), dirNode("a", child),
		}})
		req := &repb.GetTreeRequest{DigestFunction: fn.Proto(), RootDigest: root.Proto(), PageSize: 2}
		answers, err := pages(t, s, req)
		require.NoError(t, err)
		require.Len(t, answers, 2)
		got, err := proto.Marshal(answers[0].GetDirectories()[1])
		require.NoError(t, err)
		require.Len(t, got, len(odd))
		require.Len(t, answers[1].GetDirectories(), 1, "what is missing is left out, what stands there twice is sent once")

		req.PageToken = answers[0].GetNextPageToken()
		rest, err := pages(t, s, req)
		require.NoError(t, err)
		require.Len(t, rest, 1)
		require.True(t, proto.Equal(answers[1], rest[0]))
	}
}

// TestGetTreeBomb asks for a tree of 2^100 directories, which are 101 distinct ones.
func TestGetTreeBomb(t *testing.T) {
	s := serve(t)
	d := storeDir(t, s.store, digest.SHA256, &repb.Directory{})
	for range 100 {
		d = storeDir(t, s.store, digest.SHA256, &repb.Directory{Directories: []*repb.DirectoryNode{dirNode("a", d), dirNode("b", d)}})
	}
	answers, err := pages(t, s, &repb.GetTreeRequest{RootDigest: d.Proto()})
	require.NoError(t, err)
	require.Len(t, answers[0].GetDirectories(), 101)

	c := dial(t, s.store, complete.New(s.store, s.store))
	_, err = c.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{
		ActionDigest: of("action").Proto(),
		ActionResult: &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{Path: "o", RootDirectoryDigest: d.Proto()}}},
	})
	require.NoError(t, err)
	_, err = c.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: of("action").Proto()})
	require.NoError(t, err)
}

// TestTreesKeepTheirEncoding unpacks a Tree whose Directories are encoded as another client does it, by each function.
func TestTreesKeepTheirEncoding(t *testing.T) {
	for _, fn := range digest.Functions {
		m := memory.New()
		s := dial(t, m, complete.New(m, m))
		odd, err := proto.Marshal(&repb.Directory{Files: []*repb.FileNode{
			{Name: "z", Digest: store(t, m, fn, []byte("z")).Proto()}, {Name: "a", Digest: store(t, m, fn, []byte("a")).Proto()},
		}})
		require.NoError(t, err)
		odd = append(odd, 15<<3|2, 1, 'x')
		root, err := proto.Marshal(&repb.Directory{Directories: []*repb.DirectoryNode{dirNode("d", fn.FromBytes(odd)), dirNode("c", fn.FromBytes(odd))}})
		require.NoError(t, err)
		raw := func(children ...[]byte) digest.Digest {
			tree := append([]byte{1<<3 | 2, byte(len(root)), byte(len(root) >> 7)}, root...)
			if len(root) < 128 {
				tree = append([]byte{1<<3 | 2, byte(len(root))}, root...)
			} else {
				tree[1] |= 0x80
			}
			for _, c := range children {
				tree = append(append(tree, 2<<3|2, byte(len(c))|0x80, byte(len(c)>>7)), c...)
			}
			require.NoError(t, proto.Unmarshal(tree, &repb.Tree{}))
			return store(t, m, fn, tree)
		}
		update := func(tree digest.Digest) error {
			_, err := s.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{
				DigestFunction: fn.Proto(), ActionDigest: fn.FromBytes([]byte("action")).Proto(),
				ActionResult: &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{
					Path: "o", TreeDigest: tree.Proto(), RootDirectoryDigest: fn.FromBytes(root).Proto(),
				}}},
			})
			return err
		}
		err = update(raw())
		requireCode(t, codes.FailedPrecondition, err, fn.FromBytes(odd).Hash())
		require.NoError(t, update(raw(odd)))
		for _, b := range [][]byte{root, odd} {
			got, err := cache.ReadBlob(t.Context(), m, fn.FromBytes(b), 1<<20)
			require.NoError(t, err)
			require.Equal(t, b, got)
		}
		require.NoError(t, update(raw()), "what the Tree lacks may be in the CAS")
		answers, err := pages(t, s, &repb.GetTreeRequest{DigestFunction: fn.Proto(), RootDigest: fn.FromBytes(root).Proto()})
		require.NoError(t, err)
		require.Len(t, answers[0].GetDirectories(), 2)
	}
}

// TestIncompleteResults: a result whose outputs are not there is refused, and in no way that reads as a miss.
func TestIncompleteResults(t *testing.T) {
	m := memory.New()
	s := dial(t, m, complete.New(m, m))
	for what, ar := range map[string]*repb.ActionResult{
		"file":   {OutputFiles: []*repb.OutputFile{{Path: "f", Digest: of("gone").Proto()}}},
		"stdout": {StdoutDigest: of("gone").Proto()},
		"tree":   {OutputDirectories: []*repb.OutputDirectory{{Path: "d", TreeDigest: of("gone").Proto()}}},
		"root":   {OutputDirectories: []*repb.OutputDirectory{{Path: "d", RootDirectoryDigest: of("gone").Proto()}}},
	} {
		t.Run(what, func(t *testing.T) { requireCode(t, codes.FailedPrecondition, update(t, s, ar), of("gone").Hash()) })
	}
}

func TestInline(t *testing.T) {
	s := serve(t)
	large := string(random(5, 700<<10))
	ar := &repb.ActionResult{StdoutDigest: put(t, s.store, "out").Proto(), StderrDigest: of("gone").Proto()}
	for i := range 3 {
		ar.OutputFiles = append(ar.OutputFiles, &repb.OutputFile{Path: fmt.Sprint(i), Digest: put(t, s.store, large).Proto()})
	}
	ar.OutputFiles = append(ar.OutputFiles, &repb.OutputFile{Path: "small", Digest: put(t, s.store, "small").Proto()})
	require.NoError(t, update(t, s, ar))
	get := func(req *repb.GetActionResultRequest) *repb.ActionResult {
		req.ActionDigest = of("action").Proto()
		got, err := s.ac.GetActionResult(t.Context(), req)
		require.NoError(t, err)
		return got
	}
	require.True(t, proto.Equal(ar, get(&repb.GetActionResultRequest{})), "nothing that was not asked for")
	got := get(&repb.GetActionResultRequest{InlineStdout: true, InlineStderr: true, InlineOutputFiles: []string{"0", "2", "small", "none"}})
	require.Equal(t, "out", string(got.GetStdoutRaw()))
	require.Empty(t, got.GetStderrRaw(), "what cannot be read is not inlined")
	require.True(t, string(got.GetOutputFiles()[0].GetContents()) == large)
	require.Empty(t, got.GetOutputFiles()[1].GetContents())
	require.Empty(t, got.GetOutputFiles()[2].GetContents(), "a mebibyte in all")
	require.Equal(t, "small", string(got.GetOutputFiles()[3].GetContents()))
	require.True(t, proto.Equal(ar, get(&repb.GetActionResultRequest{})), "what is stored stays as it is")
}
