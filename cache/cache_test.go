package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

func TestReadBlob(t *testing.T) {
	c := memory.New()
	d, err := cache.PutBlob(t.Context(), c, []byte("hello"))
	require.NoError(t, err)
	b, err := cache.ReadBlob(t.Context(), c, d, 5)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b))

	_, err = cache.ReadBlob(t.Context(), c, d, 4)
	require.ErrorContains(t, err, "larger than the 4 bytes")
	require.NotErrorIs(t, err, cache.ErrNotFound)
	_, err = cache.ReadBlob(t.Context(), c, digest.FromBytes([]byte("other")), 5)
	require.ErrorIs(t, err, cache.ErrNotFound)
}

func TestMessages(t *testing.T) {
	c := memory.New()
	want := &repb.Command{Arguments: []string{"a", "b"}}
	d, err := cache.PutMessage(t.Context(), c, want)
	require.NoError(t, err)
	got := new(repb.Command)
	require.NoError(t, cache.ReadMessage(t.Context(), c, d, got))
	require.True(t, proto.Equal(want, got))

	d, err = cache.PutBlob(t.Context(), c, []byte{0xff})
	require.NoError(t, err)
	err = cache.ReadMessage(t.Context(), c, d, got)
	require.ErrorContains(t, err, d.String()+" is not a Command")
}

// broken is a CAS whose Puts fail and that has no PutMany.
type broken struct{ cache.CAS }

var errBroken = errors.New("broken")

func (broken) Put(context.Context, digest.Digest, io.Reader) error { return errBroken }

func TestPutAllSurfacesErrors(t *testing.T) {
	b := []byte("x")
	blobs := []cache.Blob{{Digest: digest.FromBytes(b), Data: b}}
	err := cache.PutAll(t.Context(), broken{memory.New()}, blobs)
	require.ErrorIs(t, err, errBroken)
	require.ErrorContains(t, err, blobs[0].Digest.Hash())
}

// batching is a CAS with a PutMany.
type batching struct {
	cache.CAS
	batches int
}

func (b *batching) PutMany(ctx context.Context, blobs []cache.Blob) error {
	b.batches++
	for _, blob := range blobs {
		if err := b.Put(ctx, blob.Digest, bytes.NewReader(blob.Data)); err != nil {
			return err
		}
	}
	return nil
}

func TestPutAllUsesBatches(t *testing.T) {
	c := &batching{CAS: memory.New()}
	b := []byte("x")
	require.NoError(t, cache.PutAll(t.Context(), c, []cache.Blob{{Digest: digest.FromBytes(b), Data: b}}))
	require.Equal(t, 1, c.batches)
	got, err := cache.ReadBlob(t.Context(), c, digest.FromBytes(b), 1)
	require.NoError(t, err)
	require.Equal(t, b, got)
}
