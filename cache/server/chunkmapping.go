package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/fastcdc"
)

// chunking is how blobs are split unless a client has registered another way: REAPI's recommended parameters.
var chunking = fastcdc.Params{Average: 512 << 10}

// maxChunks bounds a mapping: blobs of 256 GiB with chunks of the usual size.
const maxChunks = 500_000

// mapping says which chunks make up a blob. Chunks are ordinary blobs, so each is stored once, whatever it is a part of.
//
// It is kept as a SplitBlobResponse in a blob of its own, which an ActionResult names as its one output file, under a
// key that no Action has: see mappingKey. So it is kept, overlaid and evicted like everything else. It is only a
// shortcut: without it a blob is split again. Therefore it is stored only for those who may store ActionResults, and
// never without having been verified here.
type mapping struct {
	chunks   []digest.Digest
	function repb.ChunkingFunction_Value
}

// mappingPath is the path of the output file that is a mapping.
const mappingPath = ".pexpress/chunk-mapping"

// mappingKey returns the key of a blob's mapping: the digest of a text that is no Action.
func mappingKey(blob digest.Digest) digest.Digest {
	return blob.Function().FromBytes(fmt.Appendf(nil, "pexpress: chunk mapping of %s", blob))
}

// findMapping returns the mapping of a blob, if one is stored and all its chunks are there, which are kept by asking.
func findMapping(ctx context.Context, inst Instance, blob digest.Digest) (mapping, error) {
	if inst.ActionCache == nil {
		return mapping{}, cache.NotFound("chunk mapping of blob", blob)
	}
	ar, err := inst.ActionCache.GetActionResult(ctx, mappingKey(blob))
	if err != nil {
		return mapping{}, err
	}
	files := ar.GetOutputFiles()
	if len(files) != 1 || files[0].GetPath() != mappingPath {
		return mapping{}, cache.NotFound("chunk mapping of blob", blob)
	}
	d, err := blob.Function().FromProto(files[0].GetDigest())
	if err != nil {
		return mapping{}, err
	}
	b, err := cache.ReadBlob(ctx, inst.CAS, d, cache.MaxMessage)
	if err != nil {
		return mapping{}, err
	}
	m, err := parseMapping(b, blob)
	if err != nil {
		return mapping{}, fmt.Errorf("%w: %w", cache.NotFound("chunk mapping of blob", blob), err)
	}
	missing, err := inst.CAS.FindMissing(ctx, m.chunks)
	if err == nil && len(missing) > 0 {
		err = cache.NotFound("chunk", missing[0])
	}
	return m, err
}

// parseMapping reads what encode wrote.
func parseMapping(b []byte, blob digest.Digest) (mapping, error) {
	var p repb.SplitBlobResponse
	if err := proto.Unmarshal(b, &p); err != nil {
		return mapping{}, fmt.Errorf("no chunk mapping: %w", err)
	}
	c := collector{blob: blob}
	if err := c.add(p.GetChunkDigests()); err != nil {
		return mapping{}, err
	}
	return mapping{c.chunks, p.GetChunkingFunction()}, c.finish()
}

func (m mapping) encode() ([]byte, error) {
	p := &repb.SplitBlobResponse{ChunkDigests: protos(m.chunks), ChunkingFunction: m.function}
	return proto.MarshalOptions{Deterministic: true}.Marshal(p)
}

// save stores a mapping that has been verified, for a caller who may store ActionResults.
func (s *server) saveMapping(ctx context.Context, instance string, blob digest.Digest, m mapping) error {
	inst, err := s.instance(ctx, instance, WriteActions)
	switch c := status.Code(err); {
	case c == codes.PermissionDenied || c == codes.Unauthenticated:
		return nil
	case err != nil:
		return err
	case inst.ActionCache == nil:
		return nil
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	d := blob.Function().FromBytes(b)
	if err := inst.CAS.Put(ctx, d, bytes.NewReader(b)); err != nil {
		return err
	}
	return inst.ActionCache.UpdateActionResult(ctx, mappingKey(blob), &repb.ActionResult{
		OutputFiles: []*repb.OutputFile{{Path: mappingPath, Digest: d.Proto()}},
	})
}

// collector gathers the chunks that are said to make up a blob.
type collector struct {
	blob   digest.Digest
	chunks []digest.Digest
	size   int64
}

func (c *collector) add(ps []*repb.Digest) error {
	if len(ps) > maxChunks-len(c.chunks) {
		return status.Errorf(codes.InvalidArgument, "blob %s is in more than %d chunks", c.blob, maxChunks)
	}
	for _, p := range ps {
		d, err := c.blob.Function().FromProto(p)
		if err != nil {
			return err
		}
		if d.Size() > c.blob.Size()-c.size {
			return status.Errorf(codes.InvalidArgument, "the chunks of blob %s have more bytes than it has", c.blob)
		}
		c.size += d.Size()
		c.chunks = append(c.chunks, d)
	}
	return nil
}

func (c *collector) finish() error {
	if c.size != c.blob.Size() {
		return status.Errorf(codes.InvalidArgument, "the chunks of blob %s have %d bytes together", c.blob, c.size)
	}
	return nil
}

// joined reads chunks one after the other.
type joined struct {
	ctx    context.Context
	cas    cache.CAS
	chunks []digest.Digest
	now    io.ReadCloser
}

func (j *joined) Read(p []byte) (int, error) {
	for {
		if j.now == nil {
			if len(j.chunks) == 0 {
				return 0, io.EOF
			}
			rc, err := j.cas.Get(j.ctx, j.chunks[0])
			if err != nil {
				return 0, fmt.Errorf("chunk %s: %w", j.chunks[0], stored(err))
			}
			j.now = rc
		}
		n, err := j.now.Read(p)
		if errors.Is(err, io.EOF) {
			err = j.Close()
			j.chunks = j.chunks[1:]
		} else if err != nil {
			err = fmt.Errorf("chunk %s: %w", j.chunks[0], stored(err))
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (j *joined) Close() error {
	if j.now == nil {
		return nil
	}
	err := j.now.Close()
	j.now = nil
	return err
}

func protos(ds []digest.Digest) []*repb.Digest {
	ps := make([]*repb.Digest, len(ds))
	for i, d := range ds {
		ps[i] = d.Proto()
	}
	return ps
}
