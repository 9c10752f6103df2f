package full_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/full"
	"github.com/pexpress/pexpress/cache/memory"
)

func TestConformance(t *testing.T) {
	cachetest.TestCAS(t, func(*testing.T) cache.CAS { return full.Of(memory.New()) })
}

func TestParts(t *testing.T) {
	c := full.Of(memory.New())
	require.Equal(t, c, full.Of(c), "what is full stays as it is")
	want := bytes.Repeat([]byte("some words, again and again; "), 20_000)
	d, err := cache.PutBlob(t.Context(), c, want)
	require.NoError(t, err)
	for _, offset := range []int64{0, 1, 100_000, d.Size()} {
		rc, err := c.GetFrom(t.Context(), d, offset)
		require.NoError(t, err)
		got, err := io.ReadAll(rc)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[offset:], got))
		require.NoError(t, rc.Close())

		_, err = c.GetZstd(t.Context(), d, offset)
		require.ErrorIs(t, err, cache.ErrNoZstd)
	}
	for _, offset := range []int64{-1, d.Size() + 1} {
		_, err := c.GetFrom(t.Context(), d, offset)
		require.ErrorContains(t, err, "no offset")
	}
	_, err = c.GetFrom(t.Context(), digest.FromBytes([]byte("absent")), 0)
	require.ErrorIs(t, err, cache.ErrNotFound)
}
