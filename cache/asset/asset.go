// Package asset serves the Remote Asset API (build.bazel.remote.asset.v1): from a URI and qualifiers to a blob or
// directory in the CAS.
//
// What was pushed is found by exactly the qualifiers that it was pushed with. What nobody has pushed is fetched from its
// origin, if the configuration allows that origin: a blob as it is, a directory as an archive (tar, tar by gzip, zip) that
// is unpacked; checksum.sri is that of the archive, and the qualifier directory names the part of it that is wanted. Both
// are remembered in the instance's ActionCache: see record.
//
// To push, and to be remembered, needs the right to store ActionResults: whoever has it says what others get. To have
// something fetched needs the right to store blobs. To look up needs the right to read.
//
// Fetching on behalf of others is what attackers look for (SSRF), so: only schemes, hosts and ports that the
// configuration lists, checked anew for each redirect; connections only to public addresses, checked when they are made
// and not when the name was looked up, unless the configuration lists others; no proxy from the environment; size and
// time limited. A client's headers go to the origin that it named and not where that redirects to. They are in no error
// and in no record.
package asset

import (
	"context"
	"crypto/x509"
	"net/http"
	"time"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/server"
)

// Options are the choices of the one who serves.
type Options struct {
	Allow    Allowed          // origins; none means that only what was pushed is found
	MaxBytes int64            // of one blob, and of the files of one archive together; 4 GiB if 0
	Timeout  time.Duration    // of one fetch, whatever a client asks for; ten minutes if 0
	Fetches  int64            // at a time; 16 if 0
	Spool    string           // directory for archives, and blobs whose digest is known only at their end; "" is the system's
	RootCAs  *x509.CertPool   // of origins; nil is the system's
	Now      func() time.Time // time.Now if nil
}

// Register adds the Fetch and Push services to s.
func Register(s *grpc.Server, instances server.Instances, o Options) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 4 << 30
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.Fetches == 0 {
		o.Fetches = 16
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	srv := &service{instances: instances, Options: o, client: newClient(o), fetches: semaphore.NewWeighted(o.Fetches)}
	assetpb.RegisterFetchServer(s, srv)
	assetpb.RegisterPushServer(s, srv)
}

type service struct {
	assetpb.UnimplementedFetchServer
	assetpb.UnimplementedPushServer
	instances server.Instances
	Options
	client  *http.Client
	fetches *semaphore.Weighted
}

// instance returns the cache that a call is about. Its results are whole: what a record names is there.
func (s *service) instance(ctx context.Context, name string, want server.Access) (server.Instance, error) {
	inst, err := s.instances.Instance(ctx, name, want)
	if err != nil {
		return inst, server.Precondition(err)
	}
	if inst.ActionCache == nil {
		return inst, status.Errorf(codes.Unimplemented, "instance %.200q has no ActionCache, so it remembers no assets", name)
	}
	inst.ActionCache = complete.New(inst.CAS, inst.ActionCache)
	return inst, nil
}

// may reports whether the caller has a right.
func (s *service) may(ctx context.Context, name string, want server.Access) (bool, error) {
	_, err := s.instances.Instance(ctx, name, want)
	switch status.Code(err) {
	case codes.OK:
		return true, nil
	case codes.PermissionDenied, codes.Unauthenticated:
		return false, nil
	}
	return false, server.Precondition(err)
}

func function(v repb.DigestFunction_Value) (digest.Function, error) {
	fn, err := digest.FunctionFromProto(v)
	return fn, server.Precondition(err)
}
