package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/cache/server"
)

// malformed are digests that no blob has.
var malformed = []*repb.Digest{
	nil,
	{},
	{Hash: "abc", SizeBytes: 3},
	{Hash: strings.Repeat("g", 64)},
	{Hash: strings.ToUpper(of("x").Hash()), SizeBytes: 1},
	{Hash: of("x").Hash(), SizeBytes: -1},
	{Hash: "../" + strings.Repeat("0", 61)},
}

func TestFindMissingBlobs(t *testing.T) {
	s := serve(t)
	there, gone := put(t, s.store, "there"), of("gone")
	resp, err := s.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{
		InstanceName: "i", BlobDigests: []*repb.Digest{there.Proto(), gone.Proto(), digest.Empty.Proto(), gone.Proto()},
	})
	require.NoError(t, err)
	require.Len(t, resp.GetMissingBlobDigests(), 1)
	require.Equal(t, gone.Hash(), resp.GetMissingBlobDigests()[0].GetHash())
	for _, d := range malformed[1:] {
		_, err := s.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: []*repb.Digest{d}})
		requireCode(t, codes.InvalidArgument, err, "invalid digest")
	}
}

func TestBatchUpdateBlobs(t *testing.T) {
	s := serve(t)
	req := func(d digest.Digest, data string) *repb.BatchUpdateBlobsRequest_Request {
		return &repb.BatchUpdateBlobsRequest_Request{Digest: d.Proto(), Data: []byte(data)}
	}
	packed := req(of("packed"), "packed")
	packed.Compressor = repb.Compressor_ZSTD
	longer, err := digest.New(of("size").Hash(), 5)
	require.NoError(t, err)
	resp, err := s.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{
		req(of("good"), "good"), req(of("right"), "wrong"), req(digest.Digest{}, "none"), packed, req(longer, "size"),
		req(of("last"), "last"), req(digest.Empty, ""),
	}})
	require.NoError(t, err)
	var got []codes.Code
	for _, r := range resp.GetResponses() {
		got = append(got, codes.Code(r.GetStatus().GetCode()))
	}
	const bad = codes.InvalidArgument // of the one that says zstd, too
	require.Equal(t, []codes.Code{codes.OK, bad, bad, bad, bad, codes.OK, codes.OK}, got)
	require.Contains(t, resp.GetResponses()[1].GetStatus().GetMessage(), of("right").Hash())
	missing, err := s.store.FindMissing(t.Context(), []digest.Digest{of("good"), of("right"), of("wrong"), of("packed"), of("last")})
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{of("right"), of("wrong"), of("packed")}, missing)
}

func TestBatchesAreBounded(t *testing.T) {
	s := serve(t)
	half := strings.Repeat("x", server.MaxBatch/2+1)
	req := &repb.BatchUpdateBlobsRequest_Request{Digest: of(half).Proto(), Data: []byte(half)}
	_, err := s.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{req, req}})
	requireCode(t, codes.InvalidArgument, err, "use ByteStream")

	d := put(t, s.store, half)
	_, err = s.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d.Proto(), d.Proto()}})
	requireCode(t, codes.InvalidArgument, err, "use ByteStream")
	most := int64(^uint64(0) >> 1)
	_, err = s.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{
		{Hash: d.Hash(), SizeBytes: 1}, {Hash: d.Hash(), SizeBytes: most}, {Hash: d.Hash(), SizeBytes: most},
	}})
	requireCode(t, codes.InvalidArgument, err, "use ByteStream")

	full := strings.Repeat("y", server.MaxBatch)
	_, err = s.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{
		Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: of(full).Proto(), Data: []byte(full)}},
	})
	require.NoError(t, err, "what Capabilities promise fits into a message")
	resp, err := s.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{of(full).Proto()}})
	require.NoError(t, err)
	require.Equal(t, full, string(resp.GetResponses()[0].GetData()))
}

func TestBatchReadBlobs(t *testing.T) {
	s := serve(t)
	there, gone := put(t, s.store, "there"), of("gone")
	resp, err := s.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{
		Digests: []*repb.Digest{gone.Proto(), there.Proto(), digest.Empty.Proto()},
	})
	require.NoError(t, err)
	r := resp.GetResponses()
	require.Len(t, r, 3)
	require.Equal(t, int32(codes.NotFound), r[0].GetStatus().GetCode())
	require.Equal(t, gone.Hash(), r[0].GetDigest().GetHash())
	require.Equal(t, "there", string(r[1].GetData()))
	require.Zero(t, r[1].GetStatus().GetCode())
	require.Zero(t, r[2].GetStatus().GetCode())
	for _, d := range malformed[1:] {
		_, err := s.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d}})
		requireCode(t, codes.InvalidArgument, err, "invalid digest")
	}
}

// wide stores a tree of n directories below the root, each another, and returns it.
func wide(t *testing.T, c cache.CAS, n int) *merkle.Tree {
	var b merkle.Builder
	for i := range n {
		require.NoError(t, b.File(fmt.Sprintf("d%d/f", i), of(fmt.Sprint(i))))
	}
	tree, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tree.Put(t.Context(), c))
	return tree
}

// pages reads the answers of one GetTree.
func pages(t *testing.T, s *served, req *repb.GetTreeRequest) (answers []*repb.GetTreeResponse, _ error) {
	stream, err := s.cas.GetTree(t.Context(), req)
	require.NoError(t, err)
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return answers, nil
		}
		if err != nil {
			return answers, err
		}
		answers = append(answers, resp)
	}
}

// TestGetTree asks with a page size at which the tokens pass 127, where raw bytes would be no UTF-8 any more.
func TestGetTree(t *testing.T) {
	s := serve(t)
	tree := wide(t, s.store, 400)
	for _, size := range []int32{0, 1, 150, 100_000, -1} {
		answers, err := pages(t, s, &repb.GetTreeRequest{RootDigest: tree.Root().Proto(), PageSize: size})
		require.NoError(t, err)
		seen := map[digest.Digest]bool{}
		for i, a := range answers {
			if size > 0 {
				require.LessOrEqual(t, len(a.GetDirectories()), int(size))
			}
			require.Equal(t, i == len(answers)-1, a.GetNextPageToken() == "")
			for _, msg := range a.GetDirectories() {
				_, d, err := digest.Marshal(msg)
				require.NoError(t, err)
				require.False(t, seen[d], "each Directory is sent once")
				require.Equal(t, len(seen) == 0, d == tree.Root(), "the root is first")
				seen[d] = true
			}
		}
		require.Len(t, seen, 401)

		first := answers[0]
		if token := first.GetNextPageToken(); token != "" {
			rest, err := pages(t, s, &repb.GetTreeRequest{RootDigest: tree.Root().Proto(), PageSize: 1000, PageToken: token})
			require.NoError(t, err)
			n := len(first.GetDirectories())
			for _, a := range rest {
				n += len(a.GetDirectories())
			}
			require.Equal(t, 401, n, "a token goes on where its answer ended")
		}
	}
}

func TestGetTreeRefuses(t *testing.T) {
	s := serve(t)
	tree := wide(t, s.store, 3)
	for _, token := range []string{"x", "-1", "5", of("another").String(), "blake3/" + tree.Root().String(), "\x00\x00\x00\x01"} {
		_, err := pages(t, s, &repb.GetTreeRequest{RootDigest: tree.Root().Proto(), PageToken: token})
		requireCode(t, codes.InvalidArgument, err, "page token")
	}
	_, err := pages(t, s, &repb.GetTreeRequest{RootDigest: of("gone").Proto()})
	requireCode(t, codes.NotFound, err, of("gone").Hash())
	_, err = pages(t, s, &repb.GetTreeRequest{RootDigest: put(t, s.store, "no message").Proto()})
	requireCode(t, codes.InvalidArgument, err, "is not a Directory")
	_, err = pages(t, s, &repb.GetTreeRequest{RootDigest: &repb.Digest{Hash: of("x").Hash(), SizeBytes: 1 << 60}})
	requireCode(t, codes.InvalidArgument, err, "larger than")
	for _, d := range malformed {
		_, err := pages(t, s, &repb.GetTreeRequest{RootDigest: d})
		requireCode(t, codes.InvalidArgument, err, "invalid digest")
	}
}

// failing is a CAS whose disk has failed.
type failing struct{ *memory.Store }

func (failing) Get(context.Context, digest.Digest) (io.ReadCloser, error) { return nil, errDisk }

func (failing) Put(context.Context, digest.Digest, io.Reader) error { return errDisk }

func (failing) FindMissing(context.Context, []digest.Digest) ([]digest.Digest, error) {
	return nil, errDisk
}

var errDisk = errors.New("the disk has failed")

// TestOnlyNotFoundIsAMiss: a client that were told "missing" would go on without the cache, or believe it.
func TestOnlyNotFoundIsAMiss(t *testing.T) {
	s := dial(t, failing{memory.New()}, memory.New())
	d := of("x").Proto()
	_, err := s.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: []*repb.Digest{d}})
	requireCode(t, codes.Unavailable, err, errDisk.Error())
	read, err := s.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d}})
	require.NoError(t, err)
	require.Equal(t, codes.Unavailable, status.FromProto(read.GetResponses()[0].GetStatus()).Code())
	update, err := s.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{
		Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: d, Data: []byte("x")}},
	})
	require.NoError(t, err)
	require.Equal(t, codes.Unavailable, status.FromProto(update.GetResponses()[0].GetStatus()).Code())
	_, err = readAll(t, s, "blobs/"+of("x").String(), 0, 0)
	requireCode(t, codes.Unavailable, err, errDisk.Error())
	_, err = upload(t, s, "uploads/u/blobs/"+of("x").String(), "x")
	requireCode(t, codes.Unavailable, err, errDisk.Error())
}
