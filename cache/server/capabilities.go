package server

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/bazelbuild/remote-apis/build/bazel/semver"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/digest"
)

// GetCapabilities implements repb.CapabilitiesServer. What it says about writing is true of the caller: a client that
// may not store ActionResults is told so, and does not try.
func (s *server) GetCapabilities(ctx context.Context, req *repb.GetCapabilitiesRequest) (*repb.ServerCapabilities, error) {
	if _, err := s.instance(ctx, req.GetInstanceName(), Read); err != nil {
		return nil, err
	}
	writes, err := s.may(ctx, req.GetInstanceName(), WriteCAS)
	if err != nil {
		return nil, err
	}
	update, err := s.may(ctx, req.GetInstanceName(), WriteActions)
	if err != nil {
		return nil, err
	}
	zstd := []repb.Compressor_Value{repb.Compressor_ZSTD}
	c := &repb.CacheCapabilities{
		ActionCacheUpdateCapabilities: &repb.ActionCacheUpdateCapabilities{UpdateEnabled: update},
		MaxBatchTotalSizeBytes:        MaxBatch,
		// Trees are stored and walked, never unpacked here: where a symlink leads is the client's affair.
		SymlinkAbsolutePathStrategy:     repb.SymlinkAbsolutePathStrategy_ALLOWED,
		SupportedCompressors:            zstd,
		SupportedBatchUpdateCompressors: zstd,
		SplitBlobSupport:                true,
		SpliceBlobSupport:               writes,
		FastCdc_2020Params:              &repb.FastCdc2020Params{AvgChunkSizeBytes: uint64(chunking.Average), Seed: uint32(chunking.Seed)},
	}
	for _, f := range digest.Functions {
		c.DigestFunctions = append(c.DigestFunctions, f.Proto())
	}
	return &repb.ServerCapabilities{
		CacheCapabilities: c,
		LowApiVersion:     &semver.SemVer{Major: 2},
		HighApiVersion:    &semver.SemVer{Major: 2, Minor: 13},
	}, nil
}

// may reports whether the caller has the right, and the instance what the right is about.
func (s *server) may(ctx context.Context, name string, want Access) (bool, error) {
	inst, err := s.instance(ctx, name, want)
	switch status.Code(err) {
	case codes.OK:
		return want != WriteActions || inst.ActionCache != nil, nil
	case codes.PermissionDenied, codes.Unauthenticated:
		return false, nil
	}
	return false, err
}
