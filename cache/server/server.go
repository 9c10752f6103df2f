// Package server serves a cache as the Remote Execution API v2 and ByteStream define it (Capabilities,
// ContentAddressableStorage, ByteStream and ActionCache) and over Bazel's HTTP protocol. It is the edge at which errors
// become gRPC codes.
//
// Every call names an instance. [Instances] says what that stands for and whether the caller may do what the call is
// about to do; nothing here decides about rights.
//
// Blobs are named by SHA256 or BLAKE3 and travel as they are or as zstd. A request without a digest function means
// SHA256: the hashes of both are equally long, so nothing else could be inferred.
package server

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
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

// Service is what Register has added to a server.
type Service struct{ srv *server }

// Close gives up what interrupted uploads have sent. It is for after the server's Stop, before the caches are closed.
func (s *Service) Close() { s.srv.uploads.close() }

// Register adds the services of a cache to s, which should have been made with [Options].
func Register(s *grpc.Server, instances Instances, opts ...Option) *Service {
	srv := newServer(instances, opts)
	repb.RegisterCapabilitiesServer(s, srv)
	s.RegisterService(casDesc(), srv)
	repb.RegisterActionCacheServer(s, srv)
	bspb.RegisterByteStreamServer(s, srv)
	return &Service{srv}
}

type server struct {
	repb.UnimplementedCapabilitiesServer
	repb.UnimplementedContentAddressableStorageServer
	repb.UnimplementedActionCacheServer
	bspb.UnimplementedByteStreamServer
	instances Instances
	settings
	room
	zstd    *codec
	uploads *uploads
}

func newServer(instances Instances, opts []Option) *server {
	s := &server{instances: instances, settings: defaults(), zstd: newCodec()}
	for _, o := range opts {
		o(&s.settings)
	}
	s.room = s.memory
	s.uploads = newUploads(s.kept)
	return s
}

// instance returns the cache that a call is about, if the caller may do with it what want says.
func (s *server) instance(ctx context.Context, name string, want Access) (Instance, error) {
	inst, err := s.instances.Instance(ctx, name, want)
	return inst, fail(err)
}

// actions is instance for calls that cannot do without an ActionCache.
func (s *server) actions(ctx context.Context, name string, want Access) (Instance, error) {
	inst, err := s.instance(ctx, name, want)
	if err == nil && inst.ActionCache == nil {
		err = status.Errorf(codes.Unimplemented, "instance %.200q has no ActionCache", name)
	}
	return inst, err
}

// function returns the digest function that a request names.
func function(v repb.DigestFunction_Value) (digest.Function, error) {
	f, err := digest.FunctionFromProto(v)
	return f, fail(err)
}
