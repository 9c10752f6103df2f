package server

import (
	"context"
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
	inst, err := s.actions(ctx, req.GetInstanceName(), Read)
	if err != nil {
		return nil, err
	}
	d, err := actionDigest(req.GetDigestFunction(), req.GetActionDigest())
	if err != nil {
		return nil, err
	}
	ar, err := inst.ActionCache.GetActionResult(ctx, d)
	if err != nil {
		return nil, fail(err)
	}
	s.inline(ctx, inst.CAS, d.Function(), req, ar)
	return ar, nil
}

func actionDigest(v repb.DigestFunction_Value, p *repb.Digest) (digest.Digest, error) {
	fn, err := function(v)
	if err != nil {
		return digest.Digest{}, err
	}
	d, err := fn.FromProto(p)
	return d, fail(err)
}

// maxInline is how many bytes of files an ActionResult is given to carry.
const maxInline = 1 << 20

// inline adds the contents that the request asks for, as far as they are small. REAPI calls that a hint: what cannot be
// read now is left out, and the client reads it by its digest.
func (s *server) inline(ctx context.Context, cas cache.CAS, fn digest.Function, req *repb.GetActionResultRequest, ar *repb.ActionResult) {
	left := int64(maxInline)
	contents := func(p *repb.Digest) []byte {
		d, err := fn.FromProto(p)
		if err != nil || d.Size() == 0 || d.Size() > left {
			return nil
		}
		b, err := cache.ReadBlob(ctx, cas, d, left)
		if err != nil {
			return nil
		}
		left -= int64(len(b))
		return b
	}
	if req.GetInlineStdout() && len(ar.GetStdoutRaw()) == 0 {
		ar.StdoutRaw = contents(ar.GetStdoutDigest())
	}
	if req.GetInlineStderr() && len(ar.GetStderrRaw()) == 0 {
		ar.StderrRaw = contents(ar.GetStderrDigest())
	}
	wanted := make(map[string]bool, len(req.GetInlineOutputFiles()))
	for _, path := range req.GetInlineOutputFiles() {
		wanted[path] = true
	}
	for _, f := range ar.GetOutputFiles() {
		if wanted[f.GetPath()] && len(f.GetContents()) == 0 {
			f.Contents = contents(f.GetDigest())
		}
	}
}

// UpdateActionResult implements repb.ActionCacheServer.
func (s *server) UpdateActionResult(ctx context.Context, req *repb.UpdateActionResultRequest) (*repb.ActionResult, error) {
	inst, err := s.actions(ctx, req.GetInstanceName(), WriteActions)
	if err != nil {
		return nil, err
	}
	d, err := actionDigest(req.GetDigestFunction(), req.GetActionDigest())
	if err != nil {
		return nil, err
	}
	if req.GetActionResult() == nil {
		return nil, status.Error(codes.InvalidArgument, "the request has no ActionResult")
	}
	if err := s.update(ctx, inst, d, req.GetActionResult()); err != nil {
		return nil, err
	}
	return req.GetActionResult(), nil
}

// update stores a result. The Directories of each Tree are put into the CAS as blobs of their own: some clients upload
// only the Tree, and a tree is named by its root Directory here.
func (s *server) update(ctx context.Context, inst Instance, action digest.Digest, ar *repb.ActionResult) error {
	for _, out := range ar.GetOutputDirectories() {
		if err := s.unpack(ctx, inst.CAS, action.Function(), out); err != nil {
			return Precondition(fmt.Errorf("output directory %.200q: %w", out.GetPath(), err))
		}
	}
	if err := inst.ActionCache.UpdateActionResult(ctx, action, ar); err != nil {
		return Precondition(err)
	}
	return nil
}

// unpack stores the Directories of a Tree as they are encoded there. One that the Tree lacks may be in the CAS.
func (s *server) unpack(ctx context.Context, cas cache.CAS, fn digest.Function, out *repb.OutputDirectory) error {
	if out.GetTreeDigest() == nil {
		return nil
	}
	d, err := fn.FromProto(out.GetTreeDigest())
	if err != nil {
		return err
	}
	if err := checkMessage(d); err != nil {
		return err
	}
	release, err := s.budget.take(ctx, d.Size())
	if err != nil {
		return err
	}
	defer release()
	data, err := cache.ReadBlob(ctx, cas, d, cache.MaxMessage)
	if err != nil {
		return fmt.Errorf("the Tree %s: %w", d, stored(err))
	}
	dirs, err := merkle.SplitTree(data, fn)
	if err != nil {
		return fmt.Errorf("blob %s is %w", d, err)
	}
	err = merkle.Visit(ctx, merkle.WithDirectories(cas, dirs), dirs[0].Digest, merkle.DefaultBounds, merkle.Visitor{
		Directory: func(merkle.Directory) error { return nil },
		Missing: func(child digest.Digest, err error) error {
			return fmt.Errorf("the Tree %s lacks its Directory %s, and so does the CAS: %w", d, child, err)
		},
	})
	if err != nil {
		return stored(err)
	}
	missing, err := absent(ctx, cas, dirs)
	if err != nil {
		return err
	}
	return cache.PutAll(ctx, cas, missing)
}

// absent returns those of blobs that cas lacks.
func absent(ctx context.Context, cas cache.CAS, blobs []cache.Blob) ([]cache.Blob, error) {
	ds := make([]digest.Digest, len(blobs))
	for i, b := range blobs {
		ds[i] = b.Digest
	}
	missing, err := cas.FindMissing(ctx, ds)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	want := make(map[digest.Digest]bool, len(missing))
	for _, d := range missing {
		want[d] = true
	}
	var found []cache.Blob
	for _, b := range blobs {
		if want[b.Digest] {
			found = append(found, b)
			delete(want, b.Digest)
		}
	}
	return found, nil
}
