package asset

import (
	"context"
	"errors"
	"fmt"
	"time"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/server"
)

// fetchRequest is what the two requests have in common.
type fetchRequest interface {
	GetInstanceName() string
	GetUris() []string
	GetQualifiers() []*assetpb.Qualifier
	GetTimeout() *durationpb.Duration
	GetOldestContentAccepted() *timestamppb.Timestamp
	GetDigestFunction() repb.DigestFunction_Value
}

// FetchBlob implements assetpb.FetchServer. A fetch ends with the call that asked for it.
func (s *service) FetchBlob(ctx context.Context, req *assetpb.FetchBlobRequest) (*assetpb.FetchBlobResponse, error) {
	l, err := s.look(ctx, blob, req)
	if err != nil {
		return nil, err
	}
	resp := &assetpb.FetchBlobResponse{Uri: l.uri, DigestFunction: l.fn.Proto()}
	if l.found == nil {
		if err := l.sumInCAS(ctx, req); err != nil {
			return nil, server.Precondition(err)
		}
	}
	if l.found != nil {
		resp.Uri, resp.BlobDigest, resp.ExpiresAt = l.uri, l.found.digest.Proto(), expiry(l.found)
		return resp, nil
	}
	d, uri, err := s.fetch(ctx, blob, req, l, s.download)
	resp.Uri = uri
	if err != nil {
		resp.Status, err = inline(err)
		return resp, err
	}
	resp.BlobDigest = d.Proto()
	return resp, nil
}

// inline returns the status that an answer has for a failure of the origin's, and else the call's error.
func inline(err error) (*spb.Status, error) {
	var o *originError
	if errors.As(err, &o) {
		return status.New(o.code, o.Error()).Proto(), nil
	}
	return nil, server.Precondition(err)
}

func expiry(r *record) *timestamppb.Timestamp {
	if r.expires.IsZero() {
		return nil
	}
	return timestamppb.New(r.expires)
}

// FetchDirectory implements assetpb.FetchServer. What is fetched is an archive, and the directory is what it holds, as
// package merkle makes trees: by sha256, every file executable, without empty directories.
func (s *service) FetchDirectory(ctx context.Context, req *assetpb.FetchDirectoryRequest) (*assetpb.FetchDirectoryResponse, error) {
	l, err := s.look(ctx, directory, req)
	if err != nil {
		return nil, err
	}
	resp := &assetpb.FetchDirectoryResponse{Uri: l.uri, DigestFunction: l.fn.Proto()}
	if l.found != nil {
		resp.RootDirectoryDigest, resp.ExpiresAt = l.found.digest.Proto(), expiry(l.found)
		return resp, nil
	}
	if l.fn != digest.SHA256 {
		return nil, status.Errorf(codes.InvalidArgument, "no such directory was pushed, and archives are unpacked into trees by sha256 only, not %s", l.fn)
	}
	d, uri, err := s.fetch(ctx, directory, req, l, s.downloadDirectory)
	resp.Uri = uri
	if err != nil {
		resp.Status, err = inline(err)
		return resp, err
	}
	resp.RootDirectoryDigest = d.Proto()
	return resp, nil
}

// lookup is a request and what is known of it.
type lookup struct {
	inst  server.Instance
	fn    digest.Function
	q     *qualifiers
	keys  []digest.Digest // for each URI, where it is remembered
	uri   string          // of what was found, else the first
	found *record
}

func (s *service) look(ctx context.Context, k kind, req fetchRequest) (*lookup, error) {
	inst, err := s.instance(ctx, req.GetInstanceName(), server.Read)
	if err != nil {
		return nil, err
	}
	l := &lookup{inst: inst}
	if l.fn, err = function(req.GetDigestFunction()); err != nil {
		return nil, err
	}
	if l.q, err = parseQualifiers(req.GetUris(), req.GetQualifiers()); err != nil {
		return nil, err
	}
	l.uri = req.GetUris()[0]
	for i, uri := range req.GetUris() {
		keys := l.q.recordKeys(l.fn, k, i, uri)
		l.keys = append(l.keys, keys[len(keys)-1])
		for _, key := range keys {
			if l.found != nil {
				break
			}
			if l.found, err = s.find(ctx, inst.ActionCache, key, k, req.GetOldestContentAccepted()); err != nil {
				return nil, server.Precondition(err)
			}
			if l.found != nil {
				l.uri = uri
			}
		}
	}
	return l, nil
}

// sumInCAS looks whether the CAS has the blob that the checksum names, wherever it came from. That says nothing about
// when it was retrieved, so it is of no use to a client that wants to know.
func (l *lookup) sumInCAS(ctx context.Context, req *assetpb.FetchBlobRequest) error {
	sum, ok := l.q.sums.sha256()
	if !ok || l.fn != digest.SHA256 || l.q.supported(blob) != nil || req.GetOldestContentAccepted() != nil {
		return nil
	}
	d, ok, err := cache.FindHash(ctx, l.inst.CAS, l.fn, sum)
	switch {
	case !ok || errors.Is(err, cache.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	l.found = &record{digest: d}
	return nil
}

// get fetches one URI.
type get func(ctx context.Context, cas cache.CAS, l *lookup, i int, uri string) (digest.Digest, error)

// fetch fetches an asset for as long as the request and the configuration allow.
func (s *service) fetch(ctx context.Context, k kind, req fetchRequest, l *lookup, one get) (digest.Digest, string, error) {
	if err := l.q.supported(k); err != nil {
		return digest.Digest{}, l.uri, err
	}
	timeout := s.Timeout
	if t := req.GetTimeout(); t != nil {
		if t.AsDuration() <= 0 {
			return digest.Digest{}, l.uri, status.Error(codes.InvalidArgument, "the timeout is not positive")
		}
		timeout = min(timeout, t.AsDuration())
	}
	return s.fetchFirst(ctx, k, req, l, timeout, one)
}

// fetchFirst fetches the asset from the first of its URIs that has it, and remembers it.
func (s *service) fetchFirst(ctx context.Context, k kind, req fetchRequest, l *lookup, timeout time.Duration, one get) (digest.Digest, string, error) {
	inst, err := s.instance(ctx, req.GetInstanceName(), server.WriteCAS)
	if err != nil {
		return digest.Digest{}, "", err
	}
	fetching, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := s.fetches.Acquire(fetching, 1); err != nil {
		if ctx.Err() != nil {
			return digest.Digest{}, "", err
		}
		return digest.Digest{}, l.uri, &originError{codes.ResourceExhausted, errors.New("too many fetches are under way: try again later")}
	}
	defer s.fetches.Release(1)
	var first error
	where := ""
	for i, uri := range req.GetUris() {
		began := s.Now()
		d, err := one(fetching, inst.CAS, l, i, uri)
		if err == nil {
			return d, uri, s.remember(ctx, req.GetInstanceName(), l.keys[i], k, &record{digest: d, time: began})
		}
		var o *originError
		if !errors.As(err, &o) {
			return d, uri, fmt.Errorf("store what was fetched: %w", err)
		}
		if first == nil {
			first, where = err, uri
		}
	}
	return digest.Digest{}, where, first
}

// remember stores the record of what was fetched, for those who may.
func (s *service) remember(ctx context.Context, instance string, key digest.Digest, k kind, r *record) error {
	ok, err := s.may(ctx, instance, server.WriteActions)
	if err != nil || !ok {
		return err
	}
	inst, err := s.instance(ctx, instance, server.WriteActions)
	if err != nil {
		return err
	}
	return r.save(ctx, inst.ActionCache, []digest.Digest{key}, k)
}
