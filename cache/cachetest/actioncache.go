package cachetest

import (
	"strconv"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// TestActionCache checks that what newCache returns keeps every promise of cache.ActionCache. The CAS is the one in
// which the ActionCache expects outputs to be. Each subtest calls newCache once.
func TestActionCache(t *testing.T, newCache func(t *testing.T) (cache.CAS, cache.ActionCache)) {
	TestActionCacheWith(t, digest.SHA256, newCache)
}

// TestActionCacheWith is TestActionCache for Actions and outputs named by fn.
func TestActionCacheWith(t *testing.T, fn digest.Function, newCache func(t *testing.T) (cache.CAS, cache.ActionCache)) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, digest.Function, cache.CAS, cache.ActionCache)
	}{
		{"round trip", testResult},
		{"not found", testResultNotFound},
		{"overwrite", testResultOverwrite},
		{"copies", testResultCopies},
		{"concurrent updates", testResultConcurrent},
		{"canceled", testResultCanceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			cas, ac := newCache(t)
			test.run(t, fn, cas, ac)
		})
	}
}

// result returns an ActionResult whose one output file is in cas.
func result(t *testing.T, fn digest.Function, cas cache.CAS, seed uint64) *repb.ActionResult {
	t.Helper()
	d := mustPut(t, fn, cas, content(seed, 1000))
	return &repb.ActionResult{
		ExitCode:    int32(seed % 100),
		OutputFiles: []*repb.OutputFile{{Path: "out", Digest: d.Proto(), IsExecutable: true}},
		StdoutRaw:   []byte("said " + strconv.FormatUint(seed, 10)),
	}
}

// requireResult checks what is stored. A server may add metadata of its own about the execution.
func requireResult(t *testing.T, ac cache.ActionCache, action digest.Digest, want *repb.ActionResult) {
	t.Helper()
	got, err := ac.GetActionResult(t.Context(), action)
	require.NoError(t, err)
	got.ExecutionMetadata = nil
	require.True(t, proto.Equal(want, got), "want %v, got %v", want, got)
}

func testResult(t *testing.T, fn digest.Function, cas cache.CAS, ac cache.ActionCache) {
	for i := range uint64(5) {
		action := mustPut(t, fn, cas, content(100+i, 50))
		r := result(t, fn, cas, 200+i)
		require.NoError(t, ac.UpdateActionResult(t.Context(), action, r))
		requireResult(t, ac, action, r)
	}
}

func testResultNotFound(t *testing.T, fn digest.Function, cas cache.CAS, ac cache.ActionCache) {
	// An Action that is a blob of the CAS has no result for that alone.
	action := mustPut(t, fn, cas, content(110, 50))
	_, err := ac.GetActionResult(t.Context(), action)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.ErrorContains(t, err, action.Hash())
}

func testResultOverwrite(t *testing.T, fn digest.Function, cas cache.CAS, ac cache.ActionCache) {
	action := mustPut(t, fn, cas, content(120, 50))
	for i := range uint64(3) {
		r := result(t, fn, cas, 220+i)
		require.NoError(t, ac.UpdateActionResult(t.Context(), action, r))
		requireResult(t, ac, action, r)
	}
}

func testResultCopies(t *testing.T, fn digest.Function, cas cache.CAS, ac cache.ActionCache) {
	action := mustPut(t, fn, cas, content(130, 50))
	r := result(t, fn, cas, 230)
	want := proto.CloneOf(r)
	require.NoError(t, ac.UpdateActionResult(t.Context(), action, r))
	r.OutputFiles[0].Path = "changed after the update"
	got, err := ac.GetActionResult(t.Context(), action)
	require.NoError(t, err)
	got.OutputFiles[0].Path = "changed after the get"
	requireResult(t, ac, action, want)
}

func testResultConcurrent(t *testing.T, fn digest.Function, cas cache.CAS, ac cache.ActionCache) {
	action := mustPut(t, fn, cas, content(140, 50))
	var results []*repb.ActionResult
	for i := range uint64(8) {
		results = append(results, result(t, fn, cas, 240+i))
	}
	require.NoError(t, ac.UpdateActionResult(t.Context(), action, results[0]))
	var g errgroup.Group
	for _, r := range results {
		g.Go(func() error { return ac.UpdateActionResult(t.Context(), action, r) })
		g.Go(func() error {
			_, err := ac.GetActionResult(t.Context(), action)
			return err
		})
	}
	require.NoError(t, g.Wait())
	got, err := ac.GetActionResult(t.Context(), action)
	require.NoError(t, err)
	got.ExecutionMetadata = nil
	var whole bool
	for _, r := range results {
		whole = whole || proto.Equal(r, got)
	}
	require.True(t, whole, "%v is none of those that were stored", got)
}

func testResultCanceled(t *testing.T, fn digest.Function, cas cache.CAS, ac cache.ActionCache) {
	action := mustPut(t, fn, cas, content(150, 50))
	r := result(t, fn, cas, 250)
	require.NoError(t, ac.UpdateActionResult(t.Context(), action, r))
	ctx := canceled(t)
	require.Error(t, ac.UpdateActionResult(ctx, action, result(t, fn, cas, 251)))
	_, err := ac.GetActionResult(ctx, action)
	require.Error(t, err)
	require.NotErrorIs(t, err, cache.ErrNotFound, "a canceled call is not a miss")
	requireResult(t, ac, action, r)
}
