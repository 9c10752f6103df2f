package named_test

import (
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/named"
)

// TestFile writes over a file under a name, in a cache that looks for all that an entry reaches.
func TestFile(t *testing.T) {
	m := memory.New()
	results := complete.New(m, m)
	f, err := named.New("file.json", 5, "thing", "v1", "one")
	require.NoError(t, err)
	_, err = f.Get(t.Context(), m, results)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.ErrorIs(t, err, named.ErrNone)
	for _, content := range []string{"abc", "", "defgh"} {
		require.NoError(t, f.Put(t.Context(), m, results, []byte(content), nil))
		got, err := f.Get(t.Context(), m, results)
		require.NoError(t, err)
		require.Equal(t, content, string(got))
	}
	require.ErrorContains(t, f.Put(t.Context(), m, results, []byte("too large"), nil), "more than 5")

	missing, err := m.FindMissing(t.Context(), []digest.Digest{f.Key()})
	require.NoError(t, err)
	require.Empty(t, missing, "the Action can be had")
	other, err := named.New("file.json", 5, "thing", "v1", "two")
	require.NoError(t, err)
	require.NotEqual(t, f.Key(), other.Key())
	_, err = other.Get(t.Context(), m, results)
	require.ErrorIs(t, err, cache.ErrNotFound)

	require.NoError(t, m.UpdateActionResult(t.Context(), f.Key(), &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "x"}}}))
	_, err = f.Get(t.Context(), m, m)
	require.ErrorIs(t, err, named.ErrEntry)
	gone := &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "file.json", Digest: digest.FromBytes([]byte("gone")).Proto()}}}
	require.NoError(t, m.UpdateActionResult(t.Context(), f.Key(), gone))
	_, err = f.Get(t.Context(), m, m)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.NotErrorIs(t, err, named.ErrNone)
	bad := &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "file.json", Digest: &repb.Digest{Hash: "no"}}}}
	require.NoError(t, m.UpdateActionResult(t.Context(), f.Key(), bad))
	_, err = f.Get(t.Context(), m, m)
	require.ErrorIs(t, err, named.ErrEntry)
}
