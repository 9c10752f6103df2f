package server_test

import (
	"net"
	"path/filepath"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// served is a memory cache behind a real server on a unix socket, and the raw clients of its services.
type served struct {
	store *memory.Store
	caps  repb.CapabilitiesClient
	cas   repb.ContentAddressableStorageClient
	ac    repb.ActionCacheClient
	bytes bspb.ByteStreamClient
	conn  *grpc.ClientConn
	close func()
}

func serve(t *testing.T) *served {
	store := memory.New()
	s := dial(t, store, store)
	s.store = store
	return s
}

func dial(t *testing.T, cas cache.CAS, ac cache.ActionCache) *served {
	return dialWith(t, server.Single(cas, ac))
}

func dialWith(t *testing.T, instances server.Instances, opts ...server.Option) *served {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	g := grpc.NewServer(server.Options()...)
	service := server.Register(g, instances, opts...)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	end := sync.OnceFunc(func() {
		require.NoError(t, conn.Close())
		g.Stop()
		service.Close()
		require.NoError(t, <-done)
	})
	t.Cleanup(end)
	return &served{
		close: end, conn: conn,
		caps: repb.NewCapabilitiesClient(conn), cas: repb.NewContentAddressableStorageClient(conn),
		ac: repb.NewActionCacheClient(conn), bytes: bspb.NewByteStreamClient(conn),
	}
}

func put(t *testing.T, c cache.CAS, data string) digest.Digest {
	d, err := cache.PutBlob(t.Context(), c, []byte(data))
	require.NoError(t, err)
	return d
}

func putMessage(t *testing.T, c cache.CAS, m proto.Message) digest.Digest {
	d, err := cache.PutMessage(t.Context(), c, m)
	require.NoError(t, err)
	return d
}

func of(data string) digest.Digest { return digest.FromBytes([]byte(data)) }

func requireCode(t *testing.T, want codes.Code, err error, says string) {
	t.Helper()
	require.Equal(t, want, status.Code(err), "%v", err)
	require.ErrorContains(t, err, says)
}

func TestCapabilities(t *testing.T) {
	got, err := serve(t).caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{InstanceName: "any"})
	require.NoError(t, err)
	c := got.GetCacheCapabilities()
	require.Equal(t, []repb.DigestFunction_Value{repb.DigestFunction_SHA256, repb.DigestFunction_BLAKE3}, c.GetDigestFunctions())
	require.True(t, c.GetActionCacheUpdateCapabilities().GetUpdateEnabled())
	require.Equal(t, int64(server.MaxBatch), c.GetMaxBatchTotalSizeBytes())
	require.Equal(t, []repb.Compressor_Value{repb.Compressor_ZSTD}, c.GetSupportedCompressors())
	require.Equal(t, []repb.Compressor_Value{repb.Compressor_ZSTD}, c.GetSupportedBatchUpdateCompressors())
	require.True(t, c.GetSplitBlobSupport())
	require.True(t, c.GetSpliceBlobSupport())
	require.Equal(t, uint64(512<<10), c.GetFastCdc_2020Params().GetAvgChunkSizeBytes())
	require.Nil(t, got.GetExecutionCapabilities())
	require.Equal(t, int32(2), got.GetLowApiVersion().GetMajor())
	require.Equal(t, int32(2), got.GetHighApiVersion().GetMajor())
	require.Equal(t, int32(13), got.GetHighApiVersion().GetMinor())
}

func TestWithoutActionCache(t *testing.T) {
	s := dial(t, memory.New(), nil)
	got, err := s.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{})
	require.NoError(t, err)
	require.False(t, got.GetCacheCapabilities().GetActionCacheUpdateCapabilities().GetUpdateEnabled())
	_, err = s.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: of("a").Proto()})
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

func TestOtherDigestFunctions(t *testing.T) {
	s := serve(t)
	const f = repb.DigestFunction_SHA1
	d := of("x").Proto()
	_, find := s.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{DigestFunction: f})
	_, update := s.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{DigestFunction: f})
	_, read := s.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{DigestFunction: f})
	_, get := s.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{DigestFunction: f, ActionDigest: d})
	_, set := s.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{DigestFunction: f, ActionDigest: d})
	tree, err := s.cas.GetTree(t.Context(), &repb.GetTreeRequest{DigestFunction: f, RootDigest: d})
	require.NoError(t, err)
	_, walk := tree.Recv()
	for _, err := range []error{find, update, read, get, set, walk} {
		requireCode(t, codes.InvalidArgument, err, "SHA1 is not supported")
	}
}
