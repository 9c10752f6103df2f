package full_test

import (
	"bytes"
	"errors"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/full"
	"github.com/pexpress/pexpress/cache/memory"
)

// lazy returns a Lazy, and where the cache is to be once it is made.
func lazy() (*full.Lazy, **memory.Store) {
	made := new(*memory.Store)
	find := func() (full.Cache, bool) { return *made, *made != nil }
	return full.NewLazy(find, func() (full.Cache, error) {
		if *made == nil {
			*made = memory.New()
		}
		return *made, nil
	}), made
}

func TestLazyConformance(t *testing.T) {
	cachetest.TestCAS(t, func(*testing.T) cache.CAS { l, _ := lazy(); return l })
	cachetest.TestActionCache(t, func(*testing.T) (cache.CAS, cache.ActionCache) { l, _ := lazy(); return l, l })
}

// TestLazyReadsMakeNothing asks in every way, and then writes.
func TestLazyReadsMakeNothing(t *testing.T) {
	l, made := lazy()
	ctx, d := t.Context(), digest.FromBytes([]byte("blob"))
	missing, err := l.FindMissing(ctx, []digest.Digest{d})
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{d}, missing)
	_, get := l.Get(ctx, d)
	_, from := l.GetFrom(ctx, d, 1)
	_, hash := l.FindHash(ctx, digest.SHA256, d.Sum())
	_, result := l.GetActionResult(ctx, d)
	for _, err := range []error{get, from, hash, result} {
		require.ErrorIs(t, err, cache.ErrNotFound)
	}
	_, err = l.GetZstd(ctx, d, 0)
	require.ErrorIs(t, err, cache.ErrNoZstd)
	require.NoError(t, l.GetMany(ctx, []digest.Digest{d}, func(_ int, _ []byte, err error) { require.ErrorIs(t, err, cache.ErrNotFound) }))
	require.NoError(t, l.PutMany(ctx, nil))
	require.Nil(t, *made)

	require.NoError(t, l.Put(ctx, d, bytes.NewReader([]byte("blob"))))
	require.NotNil(t, *made)
	require.NoError(t, l.UpdateActionResult(ctx, d, &repb.ActionResult{StdoutDigest: d.Proto()}))
	got, err := cache.ReadBlob(ctx, l, d, 100)
	require.NoError(t, err)
	require.Equal(t, "blob", string(got))
}

// TestLazyFinds reads what another has made, or what was there before this process began.
func TestLazyFinds(t *testing.T) {
	l, made := lazy()
	store := memory.New()
	d, err := cache.PutBlob(t.Context(), store, []byte("blob"))
	require.NoError(t, err)
	*made = store
	missing, err := l.FindMissing(t.Context(), []digest.Digest{d})
	require.NoError(t, err)
	require.Empty(t, missing)
}

func TestLazyCannotBeMade(t *testing.T) {
	errMake := errors.New("there are too many names")
	l := full.NewLazy(func() (full.Cache, bool) { return nil, false }, func() (full.Cache, error) { return nil, errMake })
	d := digest.FromBytes([]byte("blob"))
	require.ErrorIs(t, l.Put(t.Context(), d, bytes.NewReader([]byte("blob"))), errMake)
	require.ErrorIs(t, l.PutMany(t.Context(), []cache.Blob{{Digest: d, Data: []byte("blob")}}), errMake)
	require.ErrorIs(t, l.UpdateActionResult(t.Context(), d, &repb.ActionResult{}), errMake)
}
