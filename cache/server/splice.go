package server

import (
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// RegisterChunkMapping implements repb.ContentAddressableStorageServer.
func (s *server) RegisterChunkMapping(stream grpc.ClientStreamingServer[repb.RegisterChunkMappingRequest, repb.RegisterChunkMappingResponse]) error {
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "the stream ended before it named a blob")
	}
	if err != nil {
		return err
	}
	ctx := stream.Context()
	inst, err := s.instance(ctx, first.GetInstanceName(), WriteCAS)
	if err != nil {
		return err
	}
	blob, err := actionDigest(first.GetDigestFunction(), first.GetBlobDigest())
	if err != nil {
		return err
	}
	// What a mapping of this length takes at most.
	release, err := s.waiting.take(ctx, 64*min(blob.Size(), maxChunks))
	if err != nil {
		return err
	}
	defer release()
	c := &collector{blob: blob}
	for msg := first; ; {
		if err := c.add(msg.GetChunkDigests()); err != nil {
			return fail(err)
		}
		if msg, err = stream.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	if err := s.splice(ctx, first.GetInstanceName(), inst, c, first.GetChunkingFunction()); err != nil {
		return fail(err)
	}
	return stream.SendAndClose(&repb.RegisterChunkMappingResponse{BlobDigest: blob.Proto()})
}

// SpliceBlob implements repb.ContentAddressableStorageServer, for clients of API version 2.12.
func (s *server) SpliceBlob(ctx context.Context, req *repb.SpliceBlobRequest) (*repb.SpliceBlobResponse, error) {
	inst, err := s.instance(ctx, req.GetInstanceName(), WriteCAS)
	if err != nil {
		return nil, err
	}
	blob, err := actionDigest(req.GetDigestFunction(), req.GetBlobDigest())
	if err != nil {
		return nil, err
	}
	c := &collector{blob: blob}
	if err := c.add(req.GetChunkDigests()); err != nil {
		return nil, fail(err)
	}
	if err := s.splice(ctx, req.GetInstanceName(), inst, c, req.GetChunkingFunction()); err != nil {
		return nil, fail(err)
	}
	return &repb.SpliceBlobResponse{BlobDigest: blob.Proto()}, nil
}

// splice stores the blob that the chunks make up, and remembers them. The blob becomes visible when its digest has been
// found right. Of one that is there already the chunks are verified in the same way before they are believed.
func (s *server) splice(ctx context.Context, instance string, inst Instance, c *collector, fn repb.ChunkingFunction_Value) error {
	if err := c.finish(); err != nil {
		return err
	}
	missing, err := inst.CAS.FindMissing(ctx, append([]digest.Digest{c.blob}, c.chunks...))
	if err != nil {
		return err
	}
	there := len(missing) == 0 || missing[0] != c.blob
	if !there {
		missing = missing[1:]
	}
	if len(missing) > 0 {
		return fmt.Errorf("splice blob %s: %w", c.blob, cache.NotFound("chunk", missing[0]))
	}
	if there {
		// A mapping that is good is kept: others may be using its chunks.
		if _, err := findMapping(ctx, inst, c.blob); !errors.Is(err, cache.ErrNotFound) {
			return err
		}
	}
	src := &joined{ctx: ctx, cas: inst.CAS, chunks: c.chunks}
	defer src.Close()
	if there {
		_, err = io.Copy(io.Discard, digest.NewReader(src, c.blob))
	} else {
		err = inst.CAS.Put(ctx, c.blob, src)
	}
	if err != nil {
		return fmt.Errorf("splice blob %s: %w", c.blob, err)
	}
	return s.saveMapping(ctx, instance, c.blob, mapping{c.chunks, fn})
}
