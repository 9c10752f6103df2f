package instance_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/instance"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// one is a store with one cache for all names, so that many names cost nothing.
type one struct{ *memory.Store }

func (o one) Namespace(string) (cache.CAS, cache.ActionCache, error) { return o.Store, o.Store, nil }

func (o one) Usage(context.Context, string) (int64, error) { return 0, nil }

// TestReadersKeepNobodyOut makes up more names than are remembered, then writes.
func TestReadersKeepNobodyOut(t *testing.T) {
	c := openTo(auth.Patterns{"*"}, "pr-*", nil)
	c.WriteCAS = auth.Patterns{"token:w"}
	c.Quota = 100
	i := mustNew(t, one{memory.New()}, c)
	w, err := i.Instance(as(t, "token:w"), "pr-w", server.WriteCAS)
	require.NoError(t, err)
	_, err = cache.PutBlob(t.Context(), w.CAS, make([]byte, 60))
	require.NoError(t, err)
	for n := range 20_100 {
		_, err := i.Instance(as(t, "token:x"), fmt.Sprintf("pr-%d", n), server.Read)
		require.NoError(t, err)
	}
	_, err = i.Instance(as(t, "token:w"), "pr-new", server.WriteCAS)
	require.NoError(t, err)
	w, err = i.Instance(as(t, "token:w"), "pr-w", server.WriteCAS)
	require.NoError(t, err)
	_, err = cache.PutBlob(t.Context(), w.CAS, append(make([]byte, 60), 1))
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "what was written is not forgotten")
}

// TestTricksWithNames: who may read one instance tries to read another through what a URL can hold.
func TestTricksWithNames(t *testing.T) {
	s := newStore()
	mine := openTo(auth.Patterns{"token:x"}, "mine", nil)
	below := openTo(auth.Patterns{"token:x"}, "mine/sub-*", nil)
	secret := openTo(auth.Patterns{"token:boss"}, "secret", nil)
	i := mustNew(t, s, mine, below, secret)
	d, err := cache.PutBlob(t.Context(), s.namespace("secret"), []byte("secret"))
	require.NoError(t, err)
	h := server.HTTP(i)
	for _, name := range []string{
		"secret", "mine/../secret", "mine/%2e%2e/secret", "mine%2f..%2fsecret", "/secret", "secret/", "//secret", "./secret", "mine/./../secret",
		"%73ecret", "secret%00", "secret%2f", "mine/sub-../secret", "mine/sub-%2e%2e%2fsecret", "mine/sub-x/../../secret", "SECRET", "secret%20",
		"mine/blobs/secret", "mine/cas/secret", "mine/sub-*", "*", "mine/sub-\\..\\secret", "mine;secret", "mine%3fsecret",
	} {
		r := httptest.NewRequest(http.MethodGet, "/cas/"+d.Hash(), nil)
		u, err := r.URL.Parse("http://cache.example/" + name + "/cas/" + d.Hash())
		require.NoError(t, err, name)
		for _, raw := range []bool{false, true} {
			r := r.Clone(as(t, "token:x"))
			if r.URL = u; raw { // as a client sends it that does not tidy up
				r.URL.Path = "/" + name + "/cas/" + d.Hash()
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.NotEqual(t, http.StatusOK, w.Code, name)
			require.NotContains(t, w.Body.String(), "secret\x00")
			require.False(t, bytes.Equal([]byte("secret"), w.Body.Bytes()), name)
		}
		_, err = i.Instance(as(t, "token:x"), name, server.Read)
		require.Error(t, err, name)
	}
	for _, name := range []string{"", "mine/", "mine//", "mine/sub-", "mine/sub-a/b", "mine/blobs", "blobs", "mine/sub-blobs/blobs"} {
		require.False(t, i.May(as(t, "token:x"), name, server.Read), name)
	}
	require.Equal(t, digest.FromBytes([]byte("secret")), d)
}

// broken fails in the middle of a batch, and once it was asked how much it holds.
type broken struct {
	*memory.Store
	usage func() (int64, error)
}

func (b broken) Namespace(string) (cache.CAS, cache.ActionCache, error) { return b, b, nil }

func (b broken) Usage(context.Context, string) (int64, error) { return b.usage() }

func (b broken) PutMany(ctx context.Context, blobs []cache.Blob) error {
	if err := b.Put(ctx, blobs[0].Digest, bytes.NewReader(blobs[0].Data)); err != nil {
		return err
	}
	return errRead
}

// TestBrokenBatchCounts: of a batch that failed, what is there counts, and nothing else.
func TestBrokenBatchCounts(t *testing.T) {
	c := openTo(everyone, "q", nil)
	c.Quota = 100
	in := get(t, mustNew(t, instance.Store(broken{memory.New(), func() (int64, error) { return 0, nil }}), c), "q")
	blobs := []cache.Blob{{Data: bytes.Repeat([]byte("a"), 40)}, {Data: bytes.Repeat([]byte("b"), 40)}}
	for i := range blobs {
		blobs[i].Digest = digest.FromBytes(blobs[i].Data)
	}
	require.ErrorIs(t, cache.PutAll(t.Context(), in.CAS, blobs), errRead)
	_, err := cache.PutBlob(t.Context(), in.CAS, bytes.Repeat([]byte("c"), 61))
	require.ErrorContains(t, err, "holds 40 of the 100 bytes")
	_, err = cache.PutBlob(t.Context(), in.CAS, bytes.Repeat([]byte("c"), 60))
	require.NoError(t, err)
}
