package server

import (
	"bytes"
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// maxInflated is the most bytes that the blobs of one batch may have once they are decompressed. A client counts what it
// sends against MaxBatch, which is less.
const maxInflated = 4 * MaxBatch

// updateRequest is a repb.BatchUpdateBlobsRequest.
type updateRequest struct {
	instance string
	parts    []updatePart
	err      error // what is wrong with the digest function
}

// updatePart is one blob of a batch.
type updatePart struct {
	name       []byte // the Digest message, as it was sent
	digest     digest.Digest
	data       []byte
	compressor repb.Compressor_Value
	err        error
}

// GetInstanceName is what the generated message has, too.
func (r *updateRequest) GetInstanceName() string { return r.instance }

func (r *updateRequest) ProtoReflect() protoreflect.Message { return leanMessage{updateRequestType, r} }
func (r *updateRequest) Reset()                             { *r = updateRequest{} }
func (r *updateRequest) size() int                          { return 0 }
func (r *updateRequest) marshal(b []byte) []byte            { return b }

func (r *updateRequest) unmarshal(b []byte) error {
	b = bytes.Clone(b) // the parts point into it
	fn := digest.SHA256
	err := fields(b, func(num protowire.Number, content []byte, value uint64) error {
		switch num {
		case 1:
			r.instance = string(content)
		case 2:
			part, err := parsePart(content)
			if err != nil {
				return err
			}
			r.parts = append(r.parts, part)
		case 5:
			fn, r.err = leanFunction(value)
		}
		return nil
	})
	if err == nil && r.err == nil && fn != digest.SHA256 {
		for i := range r.parts {
			r.parts[i].digest = converted(r.parts[i].digest, fn)
		}
	}
	return err
}

func parsePart(b []byte) (p updatePart, err error) {
	err = fields(b, func(num protowire.Number, content []byte, value uint64) error {
		switch num {
		case 1:
			p.name = content
		case 2:
			p.data = content
		case 3:
			p.compressor = repb.Compressor_Value(value)
		}
		return nil
	})
	p.digest, p.err = leanDigest(p.name)
	return p, err
}

// updateResponse is a repb.BatchUpdateBlobsResponse.
type updateResponse struct {
	parts []updatePart // err is why a blob was not stored
	body  []byte
}

func (r *updateResponse) ProtoReflect() protoreflect.Message { return leanMessage{updateAnswerType, r} }
func (r *updateResponse) Reset()                             { *r = updateResponse{} }
func (r *updateResponse) unmarshal([]byte) error             { return nil }
func (r *updateResponse) size() int                          { return len(r.encode()) }
func (r *updateResponse) marshal(b []byte) []byte            { return append(b, r.encode()...) }

// encode encodes the answer once. A blob that was stored has no status: an absent one is OK.
func (r *updateResponse) encode() []byte {
	if r.body != nil || len(r.parts) == 0 {
		return r.body
	}
	var one []byte
	for _, p := range r.parts {
		one = protowire.AppendTag(one[:0], 1, protowire.BytesType)
		one = protowire.AppendBytes(one, p.name)
		one = appendStatus(one, 2, p.err)
		r.body = protowire.AppendTag(r.body, 1, protowire.BytesType)
		r.body = protowire.AppendBytes(r.body, one)
	}
	return r.body
}

// appendStatus appends a google.rpc.Status field; nothing for nil.
func appendStatus(b []byte, num protowire.Number, err error) []byte {
	if err == nil {
		return b
	}
	st, merr := proto.Marshal(status.Convert(fail(err)).Proto())
	if merr != nil { // a message that is not UTF-8
		st, _ = proto.Marshal(status.New(code(err), "this error can't be put into words").Proto())
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, st)
}

// batchUpdate answers BatchUpdateBlobs.
func (s *server) batchUpdate(ctx context.Context, req *updateRequest) (*updateResponse, error) {
	inst, err := s.instance(ctx, req.instance, WriteCAS)
	if err != nil {
		return nil, err
	}
	if req.err != nil {
		return nil, fail(req.err)
	}
	size, err := batchSize(req)
	if err != nil {
		return nil, err
	}
	release, err := s.budget.take(ctx, size)
	if err != nil {
		return nil, err
	}
	defer release()

	blobs := make([]cache.Blob, 0, len(req.parts))
	which := make([]int, 0, len(req.parts))
	for i := range req.parts {
		p := &req.parts[i]
		if p.err != nil {
			continue
		}
		var b cache.Blob
		if b, p.err = s.unpackBlob(p); p.err == nil {
			blobs, which = append(blobs, b), append(which, i)
		}
	}
	// Together they cost one sync; only if that fails is it asked of each by itself whether it can be stored. The CAS
	// verifies each of them.
	if err := cache.PutAll(ctx, inst.CAS, blobs); err != nil {
		for j, b := range blobs {
			req.parts[which[j]].err = inst.CAS.Put(ctx, b.Digest, bytes.NewReader(b.Data))
		}
	}
	return &updateResponse{parts: req.parts}, nil
}

// batchSize returns how many bytes a batch holds, sent and decompressed, if that is not too much.
func batchSize(req *updateRequest) (int64, error) {
	var sent, inflated int64
	for i := range req.parts {
		p := &req.parts[i]
		sent += int64(len(p.data))
		if p.err != nil || p.compressor == repb.Compressor_IDENTITY {
			continue
		}
		if inflated += p.digest.Size(); inflated > maxInflated || p.digest.Size() > maxInflated {
			return 0, status.Errorf(codes.InvalidArgument, "the batch holds more than %d bytes once decompressed: use ByteStream for %s",
				maxInflated, p.digest)
		}
	}
	if sent > MaxBatch {
		return 0, status.Errorf(codes.InvalidArgument, "the batch holds %d bytes, more than the %d allowed: use ByteStream", sent, MaxBatch)
	}
	return sent + inflated, nil
}

// unpackBlob returns one blob of a batch. Whether the bytes are right the CAS will say.
func (s *server) unpackBlob(p *updatePart) (cache.Blob, error) {
	switch p.compressor {
	case repb.Compressor_IDENTITY:
		return cache.Blob{Digest: p.digest, Data: p.data}, nil
	case repb.Compressor_ZSTD:
		data, err := s.zstd.inflate(p.data, p.digest)
		return cache.Blob{Digest: p.digest, Data: data}, err
	default:
		return cache.Blob{}, status.Errorf(codes.InvalidArgument, "compressor %s of blob %s is not supported: use ZSTD or none",
			p.compressor, p.digest)
	}
}
