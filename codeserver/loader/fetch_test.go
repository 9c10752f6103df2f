package loader

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// partCAS has neither of two blobs: one is missing, the other never comes.
type partCAS struct {
	cache.CAS
	missing, never digest.Digest
}

func (c *partCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	switch d {
	case c.missing:
		return nil, cache.ErrNotFound
	case c.never:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return c.CAS.Get(ctx, d)
}

// TestMissingBesideLarge: that a small blob is not there is told without waiting for a large one.
func TestMissingBesideLarge(t *testing.T) {
	m := memory.New()
	large := strings.Repeat("x", smallBlob+1)
	root := makeTree(t, m, map[string]string{"large": large, "small": "small"})
	remote := &partCAS{m, digest.FromBytes([]byte("small")), digest.FromBytes([]byte(large))}
	l := open(t, t.TempDir(), remote)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, _, err := l.Load(ctx, root)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.NoError(t, ctx.Err())
}

// cutCAS loses the connection in the middle of large blobs.
type cutCAS struct{ cache.CAS }

func (c cutCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	rc, err := c.CAS.Get(ctx, d)
	if err != nil || d.Size() <= smallBlob {
		return rc, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(rc, 100), iotest.ErrReader(errors.New("connection reset"))), rc}, nil
}

// TestSaidOnce: a cache that is lost in the middle of a blob is told as the cause, once.
func TestSaidOnce(t *testing.T) {
	m := memory.New()
	root := makeTree(t, m, map[string]string{"large": strings.Repeat("x", smallBlob+1)})
	_, _, err := open(t, t.TempDir(), cutCAS{m}).Load(t.Context(), root)
	require.ErrorIs(t, err, ErrCache)
	require.Equal(t, 1, strings.Count(err.Error(), ErrCache.Error()), err)
	require.Equal(t, 1, strings.Count(err.Error(), "connection reset"), err)
}
