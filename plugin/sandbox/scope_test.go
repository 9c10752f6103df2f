package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"path/filepath"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/cache/remote"
)

func put(t *testing.T, cas cache.CAS, s string) digest.Digest {
	t.Helper()
	d, err := cache.PutBlob(t.Context(), cas, []byte(s))
	require.NoError(t, err)
	return d
}

// fixture stores an Action with one file, which is deep in its input root, and a blob that it does not declare.
func fixture(t *testing.T, cas cache.CAS) (action, root, file, hidden digest.Digest) {
	t.Helper()
	file, hidden = put(t, cas, "declared"), put(t, cas, "hidden")
	var b merkle.Builder
	require.NoError(t, b.File("a/b/file", file))
	tree, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tree.Put(t.Context(), cas))
	command, err := cache.PutMessage(t.Context(), cas, &repb.Command{Arguments: []string{"x"}})
	require.NoError(t, err)
	action, err = cache.PutMessage(t.Context(), cas, &repb.Action{CommandDigest: command.Proto(), InputRootDigest: tree.Root().Proto()})
	require.NoError(t, err)
	return action, tree.Root(), file, hidden
}

// asked is a CAS that remembers what it was asked for.
type asked struct {
	cache.CAS
	digests []digest.Digest
}

func (a *asked) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	a.digests = append(a.digests, ds...)
	return a.CAS.FindMissing(ctx, ds)
}

func TestScope(t *testing.T) {
	ctx := t.Context()
	base := &asked{CAS: memory.New()}
	action, root, file, hidden := fixture(t, base)
	s := Scope(base, action)

	_, err := s.Get(ctx, file)
	require.ErrorIs(t, err, cache.ErrNotFound, "it comes into scope by reading down to it")
	_, err = cache.ReadBlob(ctx, s, action, 1<<20)
	require.NoError(t, err)
	_, err = merkle.Load(ctx, s, root)
	require.NoError(t, err)
	b, err := cache.ReadBlob(ctx, s, file, 1<<20)
	require.NoError(t, err)
	require.Equal(t, "declared", string(b))

	_, err = s.Get(ctx, hidden)
	require.ErrorIs(t, err, cache.ErrNotFound)
	base.digests = nil
	missing, err := s.FindMissing(ctx, []digest.Digest{hidden, file, digest.Empty, hidden, action})
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{hidden}, missing)
	require.NotContains(t, base.digests, hidden, "who asks for it would keep it alive")
	require.False(t, s.Has(hidden))

	// Who can show the bytes has the blob anyway.
	require.NoError(t, s.Put(ctx, hidden, bytes.NewReader([]byte("hidden"))))
	require.True(t, s.Has(hidden))
	missing, err = s.FindMissing(ctx, []digest.Digest{hidden})
	require.NoError(t, err)
	require.Empty(t, missing)
}

// TestScopeNotByClaim checks that a blob's name alone brings nothing into scope.
func TestScopeNotByClaim(t *testing.T) {
	ctx := t.Context()
	base := memory.New()
	action, _, _, hidden := fixture(t, base)
	s := Scope(base, action)
	require.Error(t, s.Put(ctx, hidden, bytes.NewReader([]byte("guess!"))))
	require.Error(t, s.Put(ctx, hidden, io.LimitReader(bytes.NewReader(nil), 0)))
	require.Error(t, s.Put(ctx, hidden, iotestError{}))
	require.False(t, s.Has(hidden))

	// A Directory that the builder makes up does not declare anything.
	dir, err := cache.PutMessage(ctx, s, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: hidden.Proto()}}})
	require.NoError(t, err)
	_, err = cache.ReadBlob(ctx, s, dir, 1<<20)
	require.NoError(t, err)
	_, err = s.Get(ctx, hidden)
	require.ErrorIs(t, err, cache.ErrNotFound)
}

type iotestError struct{}

func (iotestError) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestWriteLimit(t *testing.T) {
	ctx := t.Context()
	base := memory.New()
	action, _, _, _ := fixture(t, base)
	s := Scope(base, action)
	s.left = 10
	require.NoError(t, s.Put(ctx, digest.FromBytes([]byte("123456")), bytes.NewReader([]byte("123456"))))
	huge, err := digest.FromProto(&repb.Digest{Hash: digest.FromBytes([]byte("x")).Proto().GetHash(), SizeBytes: math.MaxInt64})
	require.NoError(t, err)
	for range 3 { // sizes that overflow a sum
		require.Equal(t, codes.ResourceExhausted, status.Code(s.Put(ctx, huge, bytes.NewReader(nil))))
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(s.Put(ctx, digest.FromBytes([]byte("abcdef")), bytes.NewReader([]byte("abcdef")))))
	err = s.PutMany(ctx, []cache.Blob{{Digest: digest.FromBytes([]byte("abcdef")), Data: []byte("abcdef")}})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.NoError(t, s.Put(ctx, digest.FromBytes([]byte("1234")), bytes.NewReader([]byte("1234"))))
}

// TestEndpoint checks the scope through gRPC, small blobs and streamed ones.
func TestEndpoint(t *testing.T) {
	ctx := t.Context()
	base := memory.New()
	action, root, file, hidden := fixture(t, base)
	large := bytes.Repeat([]byte("large"), 1<<20)
	hiddenLarge := put(t, base, string(large))
	dir, err := NewSocketDir()
	require.NoError(t, err)
	defer dir.Close()
	socket := filepath.Join(dir.Path, "cas")
	endpoint, err := ServeCAS(socket, Scope(base, action))
	require.NoError(t, err)
	cas, err := remote.Dial(ctx, "unix://"+socket)
	require.NoError(t, err)
	defer cas.Close()

	// A blob's name with other bytes does not bring it into scope, in a batch that has a good blob too.
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	good := []byte("written")
	resp, err := repb.NewContentAddressableStorageClient(conn).BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
		Requests: []*repb.BatchUpdateBlobsRequest_Request{
			{Digest: hidden.Proto(), Data: []byte("guess!")},
			{Digest: digest.FromBytes(good).Proto(), Data: good},
		},
	})
	require.NoError(t, err)
	require.NotZero(t, resp.GetResponses()[0].GetStatus().GetCode())
	require.Zero(t, resp.GetResponses()[1].GetStatus().GetCode())

	for _, d := range []digest.Digest{hidden, hiddenLarge} {
		_, err = cache.ReadBlob(ctx, cas, d, 1<<30)
		require.ErrorIs(t, err, cache.ErrNotFound)
	}
	_, err = cache.ReadBlob(ctx, cas, action, 1<<20)
	require.NoError(t, err)
	_, err = merkle.Load(ctx, cas, root)
	require.NoError(t, err)
	_, err = cache.ReadBlob(ctx, cas, file, 1<<20)
	require.NoError(t, err)
	require.NoError(t, cas.Put(ctx, hiddenLarge, bytes.NewReader(large)))
	b, err := cache.ReadBlob(ctx, cas, hiddenLarge, 1<<30)
	require.NoError(t, err)
	require.Equal(t, large, b)
	_, err = cas.GetActionResult(ctx, action)
	require.Error(t, err, "there is no ActionCache here")
	require.NoError(t, endpoint.Close())
	_, err = cache.ReadBlob(ctx, cas, action, 1<<20)
	require.Error(t, err)
}
