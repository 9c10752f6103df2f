package asset

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// kind tells a blob's record from a directory's.
type kind string

const (
	blob      kind = "blob"
	directory kind = "directory"
)

// recordPath is where a record's ActionResult has the asset; what else has to be there with it stands below that.
const recordPath = ".pexpress/asset"

// record is what is known of a URI with qualifiers. It is an ActionResult under a key that no Action has, so that it is
// kept whole, overlaid, evicted and undone like every other: the asset is its output, the execution's time is when it
// was pushed or the retrieval from its origin began, and the rest is auxiliary metadata.
type record struct {
	digest  digest.Digest
	time    time.Time
	expires time.Time // zero for never
	blobs   []digest.Digest
	trees   []digest.Digest
}

// recordKeys returns the keys under which the record of the i-th URI is looked for: digests of texts that are no Actions.
// The last one is where the origin's content is remembered: what took credentials to fetch, and has no checksum that
// names it, is found only by those who show the same ones.
func (q *qualifiers) recordKeys(fn digest.Function, k kind, i int, uri string) []digest.Digest {
	text := fmt.Sprintf("pexpress: asset, %s\n%q\n%s\n", k, uri, strings.Join(q.key, "\n"))
	keys := []digest.Digest{fn.FromBytes([]byte(text))}
	if len(q.headers[i]) == 0 || q.sums != nil {
		return keys
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(q.headers[i])) {
		fmt.Fprintf(h, "%q: %q\n", name, q.headers[i][name])
	}
	return append(keys, fn.FromBytes(fmt.Appendf(nil, "%s%x\n", text, h.Sum(nil))))
}

// find returns the record under a key, unless it has expired or is too old.
func (s *service) find(ctx context.Context, ac cache.ActionCache, key digest.Digest, k kind, oldest *timestamppb.Timestamp) (*record, error) {
	ar, err := ac.GetActionResult(ctx, key)
	if err != nil {
		if errors.Is(err, cache.ErrNotFound) {
			return nil, nil
		}
		return nil, err
	}
	r := &record{time: ar.GetExecutionMetadata().GetWorkerCompletedTimestamp().AsTime()}
	var p *repb.Digest
	if k == blob && len(ar.GetOutputFiles()) > 0 && ar.GetOutputFiles()[0].GetPath() == recordPath {
		p = ar.GetOutputFiles()[0].GetDigest()
	}
	if k == directory && len(ar.GetOutputDirectories()) > 0 && ar.GetOutputDirectories()[0].GetPath() == recordPath {
		p = ar.GetOutputDirectories()[0].GetRootDirectoryDigest()
	}
	if p == nil {
		return nil, nil
	}
	if r.digest, err = key.Function().FromProto(p); err != nil {
		return nil, err
	}
	for _, a := range ar.GetExecutionMetadata().GetAuxiliaryMetadata() {
		var rest assetpb.FetchBlobResponse
		if a.UnmarshalTo(&rest) == nil && rest.GetExpiresAt() != nil {
			r.expires = rest.GetExpiresAt().AsTime()
		}
	}
	if !r.expires.IsZero() && !s.Now().Before(r.expires) || oldest != nil && r.time.Before(oldest.AsTime()) {
		return nil, nil
	}
	return r, nil
}

// save stores a record under each key.
func (r *record) save(ctx context.Context, ac cache.ActionCache, keys []digest.Digest, k kind) error {
	ar := &repb.ActionResult{ExecutionMetadata: &repb.ExecutedActionMetadata{WorkerCompletedTimestamp: timestamppb.New(r.time)}}
	if !r.expires.IsZero() {
		a, err := anypb.New(&assetpb.FetchBlobResponse{ExpiresAt: timestamppb.New(r.expires)})
		if err != nil {
			return err
		}
		ar.ExecutionMetadata.AuxiliaryMetadata = []*anypb.Any{a}
	}
	if k == blob {
		ar.OutputFiles = append(ar.OutputFiles, &repb.OutputFile{Path: recordPath, Digest: r.digest.Proto()})
	} else {
		ar.OutputDirectories = append(ar.OutputDirectories, &repb.OutputDirectory{Path: recordPath, RootDirectoryDigest: r.digest.Proto()})
	}
	for i, d := range r.blobs {
		ar.OutputFiles = append(ar.OutputFiles, &repb.OutputFile{Path: fmt.Sprintf("%s/blob/%d", recordPath, i), Digest: d.Proto()})
	}
	for i, d := range r.trees {
		ar.OutputDirectories = append(ar.OutputDirectories, &repb.OutputDirectory{
			Path: fmt.Sprintf("%s/directory/%d", recordPath, i), RootDirectoryDigest: d.Proto(),
		})
	}
	for _, key := range keys {
		if err := ac.UpdateActionResult(ctx, key, ar); err != nil {
			return err
		}
	}
	return nil
}
