package server

import (
	"bytes"
	"context"
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// FindMissingBlobs implements repb.ContentAddressableStorageServer.
func (s *server) FindMissingBlobs(ctx context.Context, req *repb.FindMissingBlobsRequest) (*repb.FindMissingBlobsResponse, error) {
	if err := checkFunction(req.GetDigestFunction()); err != nil {
		return nil, err
	}
	ds, err := parseAll(req.GetBlobDigests())
	if err != nil {
		return nil, err
	}
	missing, err := s.cas.FindMissing(ctx, ds)
	if err != nil {
		return nil, fail(err)
	}
	resp := &repb.FindMissingBlobsResponse{}
	for _, d := range missing {
		resp.MissingBlobDigests = append(resp.MissingBlobDigests, d.Proto())
	}
	return resp, nil
}

// BatchUpdateBlobs implements repb.ContentAddressableStorageServer.
func (s *server) BatchUpdateBlobs(ctx context.Context, req *repb.BatchUpdateBlobsRequest) (*repb.BatchUpdateBlobsResponse, error) {
	if err := checkFunction(req.GetDigestFunction()); err != nil {
		return nil, err
	}
	total := 0
	for _, r := range req.GetRequests() {
		total += len(r.GetData())
	}
	if total > MaxBatch {
		return nil, status.Errorf(codes.InvalidArgument, "the batch holds %d bytes, more than the %d allowed: use ByteStream", total, MaxBatch)
	}
	errs := make([]error, len(req.GetRequests()))
	var blobs []cache.Blob
	for i, r := range req.GetRequests() {
		var b cache.Blob
		if b, errs[i] = checkBlob(r); errs[i] == nil {
			blobs = append(blobs, b)
		}
	}
	// Together they cost one sync; only if that fails is it asked of each by itself whether it can be stored.
	if err := cache.PutAll(ctx, s.cas, blobs); err != nil {
		for i, r := range req.GetRequests() {
			if errs[i] == nil {
				d, _ := digest.FromProto(r.GetDigest())
				errs[i] = s.cas.Put(ctx, d, bytes.NewReader(r.GetData()))
			}
		}
	}
	resp := &repb.BatchUpdateBlobsResponse{}
	for i, r := range req.GetRequests() {
		resp.Responses = append(resp.Responses, &repb.BatchUpdateBlobsResponse_Response{
			Digest: r.GetDigest(), Status: status.Convert(fail(errs[i])).Proto(),
		})
	}
	return resp, nil
}

// checkBlob verifies one blob of a batch.
func checkBlob(r *repb.BatchUpdateBlobsRequest_Request) (cache.Blob, error) {
	if c := r.GetCompressor(); c != repb.Compressor_IDENTITY {
		return cache.Blob{}, status.Errorf(codes.InvalidArgument, "compressor %s is not supported: send the blob uncompressed", c)
	}
	d, err := digest.FromProto(r.GetDigest())
	if err == nil && digest.FromBytes(r.GetData()) != d {
		err = status.Errorf(codes.InvalidArgument, "the data sent for %s is not what it names", d)
	}
	return cache.Blob{Digest: d, Data: r.GetData()}, err
}

// BatchReadBlobs implements repb.ContentAddressableStorageServer.
func (s *server) BatchReadBlobs(ctx context.Context, req *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error) {
	if err := checkFunction(req.GetDigestFunction()); err != nil {
		return nil, err
	}
	ds, err := parseAll(req.GetDigests())
	if err != nil {
		return nil, err
	}
	var total int64
	for _, d := range ds {
		if total += d.Size(); total > MaxBatch || d.Size() > MaxBatch {
			return nil, status.Errorf(codes.InvalidArgument, "the batch asks for more than the %d bytes allowed: use ByteStream", MaxBatch)
		}
	}
	resp := &repb.BatchReadBlobsResponse{}
	for _, d := range ds {
		data, err := cache.ReadBlob(ctx, s.cas, d, MaxBatch)
		resp.Responses = append(resp.Responses, &repb.BatchReadBlobsResponse_Response{
			Digest: d.Proto(), Data: data, Status: status.Convert(fail(stored(err))).Proto(),
		})
	}
	return resp, nil
}

// checkMessage refuses a digest that is too large to be a message's: to try again would not help.
func checkMessage(d digest.Digest) error {
	if d.Size() > cache.MaxMessage {
		return status.Errorf(codes.InvalidArgument, "%s is larger than the %d bytes that a message may have", d, cache.MaxMessage)
	}
	return nil
}

// treePage is how many Directories an answer of GetTree holds unless fewer are asked for.
const treePage = 1000

// GetTree implements repb.ContentAddressableStorageServer. A Directory that stands in the tree several times is sent
// once. The page token is the number of Directories sent before.
func (s *server) GetTree(req *repb.GetTreeRequest, stream grpc.ServerStreamingServer[repb.GetTreeResponse]) error {
	if err := checkFunction(req.GetDigestFunction()); err != nil {
		return err
	}
	root, err := digest.FromProto(req.GetRootDigest())
	if err != nil {
		return fail(err)
	}
	if err := checkMessage(root); err != nil {
		return err
	}
	t, err := merkle.Load(stream.Context(), s.cas, root)
	if err != nil {
		return fail(err)
	}
	msg := t.Proto()
	dirs := append([]*repb.Directory{msg.GetRoot()}, msg.GetChildren()...)
	start := 0
	if token := req.GetPageToken(); token != "" {
		n, err := strconv.ParseUint(token, 10, 31)
		if err != nil || int(n) > len(dirs) {
			return status.Error(codes.InvalidArgument, "the page token is not one that this server made")
		}
		start = int(n)
	}
	page := treePage
	if n := int(req.GetPageSize()); n > 0 && n < page {
		page = n
	}
	for start < len(dirs) {
		end, size := start, 0
		for end < len(dirs) && end-start < page && (end == start || size+proto.Size(dirs[end]) < MaxBatch) {
			size += proto.Size(dirs[end])
			end++
		}
		resp := &repb.GetTreeResponse{Directories: dirs[start:end]}
		if start = end; start < len(dirs) {
			resp.NextPageToken = strconv.Itoa(start)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
	return nil
}
