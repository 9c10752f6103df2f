package complete_test

import (
	"context"
	"io"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
)

func TestComplete(t *testing.T) {
	cachetest.TestActionCache(t, func(*testing.T) (cache.CAS, cache.ActionCache) {
		m := memory.New()
		return m, complete.New(m, m)
	})
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
