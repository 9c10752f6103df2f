package server

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// GetActionResult implements repb.ActionCacheServer.
func (s *server) GetActionResult(ctx context.Context, req *repb.GetActionResultRequest) (*repb.ActionResult, error) {
	if err := checkFunction(req.GetDigestFunction()); err != nil {
		return nil, err
	}
	d, err := digest.FromProto(req.GetActionDigest())
	if err != nil {
		return nil, fail(err)
	}
	ar, err := s.ac.GetActionResult(ctx, d)
	return ar, fail(err)
}

// UpdateActionResult implements repb.ActionCacheServer. The Directories of each Tree are put into the CAS as blobs of
// their own: some clients upload only the Tree, and a tree is named by its root Directory here.
func (s *server) UpdateActionResult(ctx context.Context, req *repb.UpdateActionResultRequest) (*repb.ActionResult, error) {
	if err := checkFunction(req.GetDigestFunction()); err != nil {
		return nil, err
	}
	d, err := digest.FromProto(req.GetActionDigest())
	if err != nil {
		return nil, fail(err)
	}
	if req.GetActionResult() == nil {
		return nil, status.Error(codes.InvalidArgument, "the request has no ActionResult")
	}
	for _, out := range req.GetActionResult().GetOutputDirectories() {
		if err := s.unpack(ctx, out); err != nil {
			return nil, fail(fmt.Errorf("output directory %s: %w", out.GetPath(), err))
		}
	}
	if err := s.ac.UpdateActionResult(ctx, d, req.GetActionResult()); err != nil {
		return nil, fail(err)
	}
	return req.GetActionResult(), nil
}

func (s *server) unpack(ctx context.Context, out *repb.OutputDirectory) error {
	if out.GetTreeDigest() == nil {
		return nil
	}
	d, err := digest.FromProto(out.GetTreeDigest())
	if err != nil {
		return err
	}
	if err := checkMessage(d); err != nil {
		return err
	}
	var p repb.Tree
	err = cache.ReadMessage(ctx, s.cas, d, &p)
	if errors.Is(err, cache.ErrNotFound) {
		// NOT_FOUND would read as "no such ActionResult".
		return status.Errorf(codes.FailedPrecondition, "Tree %s is not in the CAS: upload it first", d)
	}
	if err != nil {
		return err
	}
	t, err := merkle.FromProto(&p)
	if errors.Is(err, cache.ErrNotFound) {
		return status.Errorf(codes.InvalidArgument, "Tree %s lacks one of its Directories: %v", d, err)
	}
	if err != nil {
		return err
	}
	return t.Put(ctx, s.cas)
}
