package server

import (
	"bytes"
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
	"github.com/pexpress/pexpress/cache/fastcdc"
)

// mappingPage is how many chunks one answer of GetChunkMapping names: about 0.7 MiB.
const mappingPage = 10_000

// GetChunkMapping implements repb.ContentAddressableStorageServer.
func (s *server) GetChunkMapping(req *repb.GetChunkMappingRequest, stream grpc.ServerStreamingServer[repb.GetChunkMappingResponse]) error {
	m, err := s.split(stream.Context(), req.GetInstanceName(), req.GetDigestFunction(), req.GetBlobDigest())
	if err != nil {
		return fail(stored(err))
	}
	resp := &repb.GetChunkMappingResponse{ChunkingFunction: m.function}
	for first := true; first || len(m.chunks) > 0; first = false {
		n := min(len(m.chunks), mappingPage)
		resp.ChunkDigests = protos(m.chunks[:n])
		if err := stream.Send(resp); err != nil {
			return err
		}
		m.chunks = m.chunks[n:]
		resp = &repb.GetChunkMappingResponse{}
	}
	return nil
}

// SplitBlob implements repb.ContentAddressableStorageServer, for clients of API version 2.12.
func (s *server) SplitBlob(ctx context.Context, req *repb.SplitBlobRequest) (*repb.SplitBlobResponse, error) {
	m, err := s.split(ctx, req.GetInstanceName(), req.GetDigestFunction(), req.GetBlobDigest())
	if err != nil {
		return nil, fail(stored(err))
	}
	if len(m.chunks) > 5*mappingPage {
		return nil, status.Errorf(codes.OutOfRange, "the %d chunks of %v do not fit into a message: use GetChunkMapping",
			len(m.chunks), req.GetBlobDigest().GetHash())
	}
	return &repb.SplitBlobResponse{ChunkDigests: protos(m.chunks), ChunkingFunction: m.function}, nil
}

// split returns the chunks of a blob. Those of one that nobody has split yet are stored, if the caller may store blobs:
// for others there is no mapping.
func (s *server) split(ctx context.Context, instance string, fn repb.DigestFunction_Value, p *repb.Digest) (mapping, error) {
	inst, err := s.instance(ctx, instance, Read)
	if err != nil {
		return mapping{}, err
	}
	d, err := actionDigest(fn, p)
	if err != nil {
		return mapping{}, err
	}
	missing, err := inst.CAS.FindMissing(ctx, []digest.Digest{d})
	if err != nil {
		return mapping{}, err
	}
	if len(missing) > 0 {
		return mapping{}, cache.NotFound("blob", d)
	}
	m, err := findMapping(ctx, inst, d)
	if !errors.Is(err, cache.ErrNotFound) {
		return m, err
	}
	writable, err := s.instance(ctx, instance, WriteCAS)
	if c := status.Code(err); c == codes.PermissionDenied || c == codes.Unauthenticated {
		return mapping{}, cache.NotFound("chunk mapping of blob", d)
	}
	if err != nil {
		return mapping{}, err
	}
	if d.Size()/int64(chunking.Average/4) > maxChunks {
		return mapping{}, cache.NotFound("chunk mapping of so large a blob as", d)
	}
	m.function = repb.ChunkingFunction_FAST_CDC_2020
	if m.chunks, err = s.storeChunks(ctx, writable.CAS, d); err != nil {
		return mapping{}, err
	}
	return m, s.saveMapping(ctx, instance, d, m)
}

// chunkBatch is how many bytes of chunks are stored together.
const chunkBatch = 4 << 20

// storeChunks splits a blob and stores its chunks.
func (s *server) storeChunks(ctx context.Context, cas cache.CAS, d digest.Digest) ([]digest.Digest, error) {
	release, err := s.budget.take(ctx, 3*chunkBatch)
	if err != nil {
		return nil, err
	}
	defer release()
	rc, err := cas.Get(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	chunker, err := fastcdc.New(rc, chunking)
	if err != nil {
		return nil, err
	}
	var all []digest.Digest
	var batch []cache.Blob
	size := 0
	flush := func() error {
		fresh, err := absent(ctx, cas, batch)
		if err == nil {
			err = cache.PutAll(ctx, cas, fresh)
		}
		batch, size = batch[:0], 0
		return err
	}
	for {
		chunk, err := chunker.Next()
		if errors.Is(err, io.EOF) {
			return all, flush()
		}
		if err != nil {
			return nil, fmt.Errorf("split blob %s: %w", d, err)
		}
		b := cache.Blob{Digest: d.Function().FromBytes(chunk), Data: bytes.Clone(chunk)}
		all, batch = append(all, b.Digest), append(batch, b)
		if size += len(chunk); size >= chunkBatch {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
}
