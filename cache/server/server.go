// Package server serves a cache as the Remote Execution API v2 and ByteStream define it: Capabilities,
// ContentAddressableStorage, ByteStream and ActionCache. It is the edge at which errors become gRPC codes.
//
// The instance name is accepted as it comes and means nothing yet: all share one cache. Blobs travel uncompressed.
package server

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/bazelbuild/remote-apis/build/bazel/semver"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/cache/merkle"
)

// MaxBatch is the most bytes that one batch request or answer may hold: what gRPC takes by default, less room for the
// messages around them.
const MaxBatch = 4<<20 - 64<<10

// Access is what a call is about to do with an instance.
type Access int

// The kinds of access, each a right of its own.
const (
	Read         Access = iota // of blobs and of ActionResults
	WriteCAS                   // store blobs
	WriteActions               // store ActionResults
)

// Instance is the cache that an instance name stands for.
type Instance struct {
	CAS         cache.CAS
	ActionCache cache.ActionCache // nil if the instance has none
}

// Instances finds instances, and decides who may do what with them: ctx is that of the call, with the peer's
// credentials. An error should be a gRPC status: NotFound has no meaning here, it would read as a miss.
type Instances interface {
	Instance(ctx context.Context, name string, want Access) (Instance, error)
}

// Single returns Instances that has one cache, for every name and everyone.
func Single(cas cache.CAS, ac cache.ActionCache) Instances { return single{cas, ac} }

type single Instance

func (s single) Instance(context.Context, string, Access) (Instance, error) { return Instance(s), nil }

// Register adds the services of a cache to s.
func Register(s *grpc.Server, cas cache.CAS, ac cache.ActionCache) {
	srv := &server{cas: cas, ac: ac}
	repb.RegisterCapabilitiesServer(s, srv)
	repb.RegisterContentAddressableStorageServer(s, srv)
	bspb.RegisterByteStreamServer(s, srv)
	if ac != nil {
		repb.RegisterActionCacheServer(s, srv)
	}
}

type server struct {
	repb.UnimplementedCapabilitiesServer
	repb.UnimplementedContentAddressableStorageServer
	repb.UnimplementedActionCacheServer
	bspb.UnimplementedByteStreamServer
	cas cache.CAS
	ac  cache.ActionCache
}

// GetCapabilities implements repb.CapabilitiesServer.
func (s *server) GetCapabilities(context.Context, *repb.GetCapabilitiesRequest) (*repb.ServerCapabilities, error) {
	return &repb.ServerCapabilities{
		CacheCapabilities: &repb.CacheCapabilities{
			DigestFunctions:               []repb.DigestFunction_Value{repb.DigestFunction_SHA256},
			ActionCacheUpdateCapabilities: &repb.ActionCacheUpdateCapabilities{UpdateEnabled: s.ac != nil},
			MaxBatchTotalSizeBytes:        MaxBatch,
			SymlinkAbsolutePathStrategy:   repb.SymlinkAbsolutePathStrategy_DISALLOWED,
		},
		LowApiVersion:  &semver.SemVer{Major: 2},
		HighApiVersion: &semver.SemVer{Major: 2, Minor: 3},
	}, nil
}

// errStored marks a failure of what the cache holds, so that it is not taken for one of what the client sent.
var errStored = errors.New("the cache's copy was corrupt and is set aside: send or build it again")

// stored marks an error of reading.
func stored(err error) error {
	if errors.Is(err, digest.ErrMismatch) {
		return fmt.Errorf("%w: %w", errStored, err)
	}
	return err
}

// code sorts an error by what the caller can do about it.
func code(err error) codes.Code {
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return codes.NotFound
	case errors.Is(err, errStored):
		return codes.DataLoss
	case errors.Is(err, disk.ErrFull):
		return codes.ResourceExhausted
	case errors.Is(err, digest.ErrInvalid), errors.Is(err, digest.ErrMismatch),
		errors.Is(err, merkle.ErrPath), errors.Is(err, proto.Error):
		return codes.InvalidArgument
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return codes.Unavailable
}

// fail turns an error into the status that a client sees; nil stays nil. What has a status keeps it.
func fail(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(code(err), err.Error())
}

// checkFunction refuses digests by another function than sha256, the default of an absent value.
func checkFunction(f repb.DigestFunction_Value) error {
	if f != repb.DigestFunction_UNKNOWN && f != repb.DigestFunction_SHA256 {
		return status.Errorf(codes.InvalidArgument, "digest function %s is not supported: use SHA256", f)
	}
	return nil
}

// parseAll checks the digests of a request.
func parseAll(ps []*repb.Digest) ([]digest.Digest, error) {
	ds := make([]digest.Digest, len(ps))
	for i, p := range ps {
		d, err := digest.FromProto(p)
		if err != nil {
			return nil, fail(err)
		}
		ds[i] = d
	}
	return ds, nil
}
