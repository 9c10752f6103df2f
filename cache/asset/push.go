package asset

import (
	"context"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/server"
)

// PushBlob implements assetpb.PushServer.
func (s *service) PushBlob(ctx context.Context, req *assetpb.PushBlobRequest) (*assetpb.PushBlobResponse, error) {
	if err := s.push(ctx, blob, req, req.GetBlobDigest()); err != nil {
		return nil, err
	}
	return &assetpb.PushBlobResponse{}, nil
}

// PushDirectory implements assetpb.PushServer. The whole tree has to be in the CAS.
func (s *service) PushDirectory(ctx context.Context, req *assetpb.PushDirectoryRequest) (*assetpb.PushDirectoryResponse, error) {
	if err := s.push(ctx, directory, req, req.GetRootDirectoryDigest()); err != nil {
		return nil, err
	}
	return &assetpb.PushDirectoryResponse{}, nil
}

// pushRequest is what the two requests have in common.
type pushRequest interface {
	GetInstanceName() string
	GetUris() []string
	GetQualifiers() []*assetpb.Qualifier
	GetExpireAt() *timestamppb.Timestamp
	GetReferencesBlobs() []*repb.Digest
	GetReferencesDirectories() []*repb.Digest
	GetDigestFunction() repb.DigestFunction_Value
}

func (s *service) push(ctx context.Context, k kind, req pushRequest, p *repb.Digest) error {
	inst, err := s.instance(ctx, req.GetInstanceName(), server.WriteActions)
	if err != nil {
		return err
	}
	fn, err := function(req.GetDigestFunction())
	if err != nil {
		return err
	}
	q, err := parseQualifiers(req.GetUris(), req.GetQualifiers())
	if err != nil {
		return err
	}
	if q.secret {
		return status.Error(codes.InvalidArgument, "what is pushed is found by anyone who may read: leave out the qualifiers with headers")
	}
	r := &record{time: s.Now()}
	if at := req.GetExpireAt(); at != nil {
		r.expires = at.AsTime()
	}
	if r.digest, err = fn.FromProto(p); err != nil {
		return server.Precondition(err)
	}
	if r.blobs, err = parseAll(fn, req.GetReferencesBlobs()); err != nil {
		return err
	}
	if r.trees, err = parseAll(fn, req.GetReferencesDirectories()); err != nil {
		return err
	}
	var keys []digest.Digest
	for i, uri := range req.GetUris() {
		keys = append(keys, q.recordKeys(fn, k, i, uri)...)
	}
	return server.Precondition(r.save(ctx, inst.ActionCache, keys, k))
}

func parseAll(fn digest.Function, ps []*repb.Digest) ([]digest.Digest, error) {
	var ds []digest.Digest
	for _, p := range ps {
		d, err := fn.FromProto(p)
		if err != nil {
			return nil, server.Precondition(err)
		}
		ds = append(ds, d)
	}
	return ds, nil
}
