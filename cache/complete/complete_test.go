package complete_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
)

func TestComplete(t *testing.T) {
	for _, fn := range digest.Functions {
		t.Run(fn.String(), func(t *testing.T) {
			cachetest.TestActionCacheWith(t, fn, func(*testing.T) (cache.CAS, cache.ActionCache) {
				m := memory.New()
				return m, complete.New(m, m)
			})
		})
	}
}

// without is a CAS that lacks one blob.
type without struct {
	cache.CAS
	gone digest.Digest
}

func (w without) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if d == w.gone {
		return nil, cache.NotFound("blob", d)
	}
	return w.CAS.Get(ctx, d)
}

func (w without) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	missing, err := w.CAS.FindMissing(ctx, ds)
	for _, d := range ds {
		if d == w.gone {
			missing = append(missing, d)
		}
	}
	return missing, err
}

// TestGaps takes away each blob that a result reaches, one at a time: the result is then a miss, and cannot be stored.
func TestGaps(t *testing.T) {
	ctx := t.Context()
	m := memory.New()
	put := func(content string) digest.Digest {
		d, err := cache.PutBlob(ctx, m, []byte(content))
		require.NoError(t, err)
		return d
	}
	var b merkle.Builder
	require.NoError(t, b.File("a", put("a")))
	require.NoError(t, b.File("dir/b", put("b")))
	require.NoError(t, b.Symlink("dir/link", "../a"))
	tree, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tree.Put(ctx, m))
	td, err := cache.PutMessage(ctx, m, tree.Proto())
	require.NoError(t, err)
	ar := &repb.ActionResult{
		OutputFiles:  []*repb.OutputFile{{Path: "f", Digest: put("file").Proto()}},
		StdoutDigest: put("stdout").Proto(),
		StderrDigest: put("stderr").Proto(),
		OutputDirectories: []*repb.OutputDirectory{{
			Path: "d", TreeDigest: td.Proto(), RootDirectoryDigest: tree.Root().Proto(),
		}},
	}
	all, err := complete.Closure(ctx, m, digest.SHA256, ar)
	require.NoError(t, err)
	require.Len(t, all, 8, "three files, stdout and stderr, the Tree, two Directories")
	action := digest.FromBytes([]byte("action"))
	whole := complete.New(m, m)
	require.NoError(t, whole.UpdateActionResult(ctx, action, ar))
	_, err = whole.GetActionResult(ctx, action)
	require.NoError(t, err)
	for _, d := range all {
		gap := complete.New(without{m, d}, m)
		_, err := gap.GetActionResult(ctx, action)
		require.ErrorIs(t, err, cache.ErrNotFound, "%s", d)
		require.ErrorIs(t, gap.UpdateActionResult(ctx, action, ar), cache.ErrNotFound, "%s", d)
	}
}

// TestTreesDisagree refuses a result whose two names for one output directory name different trees.
func TestTreesDisagree(t *testing.T) {
	ctx := t.Context()
	m := memory.New()
	var b merkle.Builder
	d, err := cache.PutBlob(ctx, m, []byte("x"))
	require.NoError(t, err)
	require.NoError(t, b.File("x", d))
	tree, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tree.Put(ctx, m))
	td, err := cache.PutMessage(ctx, m, tree.Proto())
	require.NoError(t, err)
	err = complete.New(m, m).UpdateActionResult(ctx, d, &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{
		Path: "d", TreeDigest: td.Proto(), RootDirectoryDigest: digest.Empty.Proto(),
	}}})
	require.ErrorContains(t, err, "different trees")
}

// putMessage stores a message under its digest by fn.
func putMessage(t *testing.T, m *memory.Store, fn digest.Function, msg proto.Message) digest.Digest {
	b, err := proto.Marshal(msg)
	require.NoError(t, err)
	d := fn.FromBytes(b)
	require.NoError(t, m.Put(t.Context(), d, bytes.NewReader(b)))
	return d
}

// TestForeignTrees takes trees that are not as we would write them, by each function, named in each way.
func TestForeignTrees(t *testing.T) {
	for _, fn := range digest.Functions {
		m := memory.New()
		file := fn.FromBytes([]byte("file"))
		sub := &repb.Directory{
			Files:    []*repb.FileNode{{Name: "z", Digest: file.Proto()}, {Name: "a", Digest: file.Proto()}},
			Symlinks: []*repb.SymlinkNode{{Name: "abs", Target: "/etc/passwd"}},
		}
		subDigest := putMessage(t, m, fn, sub)
		root := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "y", Digest: subDigest.Proto()}, {Name: "x", Digest: subDigest.Proto()}}}
		rootDigest := putMessage(t, m, fn, root)
		tree := putMessage(t, m, fn, &repb.Tree{Root: root, Children: []*repb.Directory{sub}})
		for what, c := range map[string]struct {
			out  *repb.OutputDirectory
			want []digest.Digest
		}{
			"Tree": {&repb.OutputDirectory{TreeDigest: tree.Proto()}, []digest.Digest{tree, file}},
			"root": {&repb.OutputDirectory{RootDirectoryDigest: rootDigest.Proto()}, []digest.Digest{rootDigest, subDigest, file}},
			"both": {&repb.OutputDirectory{TreeDigest: tree.Proto(), RootDirectoryDigest: rootDigest.Proto()}, []digest.Digest{tree, rootDigest, subDigest, file}},
		} {
			all, err := complete.Closure(t.Context(), m, fn, &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{c.out}})
			require.NoError(t, err, what)
			require.ElementsMatch(t, c.want, all, what)
		}
		other := digest.SHA256
		if fn == other {
			other = digest.BLAKE3
		}
		_, err := complete.Closure(t.Context(), m, other, &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{TreeDigest: tree.Proto()}}})
		require.ErrorIs(t, err, cache.ErrNotFound, "the same hash by another function names nothing")
	}
}

// TestTreeBomb costs what its 101 distinct Directories do, and not what they would be unpacked.
func TestTreeBomb(t *testing.T) {
	m := memory.New()
	tree := &repb.Tree{Root: &repb.Directory{}}
	for range 100 {
		d := putMessage(t, m, digest.SHA256, tree.GetRoot())
		tree.Children = append(tree.Children, tree.GetRoot())
		tree.Root = &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "a", Digest: d.Proto()}, {Name: "b", Digest: d.Proto()}}}
	}
	root := putMessage(t, m, digest.SHA256, tree.GetRoot())
	all, err := complete.Closure(t.Context(), m, digest.SHA256, &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{
		TreeDigest: putMessage(t, m, digest.SHA256, tree).Proto(), RootDirectoryDigest: root.Proto(),
	}}})
	require.NoError(t, err)
	require.Len(t, all, 102)
}

// TestMalformed: what cannot be read is an error, and none that reads as a miss.
func TestMalformed(t *testing.T) {
	m := memory.New()
	text, err := cache.PutBlob(t.Context(), m, []byte("no message"))
	require.NoError(t, err)
	bad := &repb.Digest{Hash: "x"}
	for what, ar := range map[string]*repb.ActionResult{
		"file":      {OutputFiles: []*repb.OutputFile{{Path: "f", Digest: bad}}},
		"stdout":    {StdoutDigest: bad},
		"no tree":   {OutputDirectories: []*repb.OutputDirectory{{Path: "d"}}},
		"Tree":      {OutputDirectories: []*repb.OutputDirectory{{Path: "d", TreeDigest: text.Proto()}}},
		"Directory": {OutputDirectories: []*repb.OutputDirectory{{Path: "d", RootDirectoryDigest: text.Proto()}}},
		"digest":    {OutputDirectories: []*repb.OutputDirectory{{Path: "d", RootDirectoryDigest: bad}}},
	} {
		_, err := complete.Closure(t.Context(), m, digest.SHA256, ar)
		require.Error(t, err, what)
		require.NotErrorIs(t, err, cache.ErrNotFound, what)
	}
}
