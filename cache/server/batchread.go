package server

import (
	"context"
	"slices"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// readRequest is a repb.BatchReadBlobsRequest.
type readRequest struct {
	findRequest
	compressors []repb.Compressor_Value
}

func (r *readRequest) ProtoReflect() protoreflect.Message { return leanMessage{readRequestType, r} }
func (r *readRequest) Reset()                             { *r = readRequest{} }

func (r *readRequest) unmarshal(b []byte) error {
	return r.parse(b, 4, func(num protowire.Number, content []byte, value uint64) {
		if num == 3 {
			r.addCompressors(content, value)
		}
	})
}

// addCompressors adds one, or several that are packed into one field.
func (r *readRequest) addCompressors(packed []byte, one uint64) {
	if packed == nil {
		r.compressors = append(r.compressors, repb.Compressor_Value(one))
	}
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return
		}
		r.compressors, packed = append(r.compressors, repb.Compressor_Value(v)), packed[n:]
	}
}

// readResponse is a repb.BatchReadBlobsResponse, encoded as it is made. It counts against the budget until it is sent.
type readResponse struct {
	body    *[]byte
	release func()
}

// bodies are those of responses that were sent.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

func newReadResponse(size int, release func()) *readResponse {
	body := bodies.Get().(*[]byte)
	*body = slices.Grow((*body)[:0], size)
	return &readResponse{body, release}
}

// buffers hands the response to gRPC.
func (r *readResponse) buffers() mem.BufferSlice {
	if len(*r.body) < 1<<10 { // gRPC frees nothing so small
		return mem.BufferSlice{mem.SliceBuffer(r.marshal(nil))}
	}
	return mem.BufferSlice{mem.NewBuffer(r.body, r)}
}

// Get implements mem.BufferPool; nobody gets anything from a response.
func (r *readResponse) Get(length int) *[]byte { b := make([]byte, length); return &b }

// Put implements mem.BufferPool: the response was sent.
func (r *readResponse) Put(body *[]byte) {
	bodies.Put(body)
	r.release()
}

func (r *readResponse) ProtoReflect() protoreflect.Message { return leanMessage{readResponseType, r} }

func (r *readResponse) Reset()                 { *r = readResponse{new([]byte), func() {}} }
func (r *readResponse) unmarshal([]byte) error { return nil }
func (r *readResponse) size() int              { return len(*r.body) }

// marshal is the last that is done with the response.
func (r *readResponse) marshal(b []byte) []byte {
	b = append(b, *r.body...)
	bodies.Put(r.body)
	r.body = new([]byte)
	r.release()
	return b
}

// overhead is what stands around a blob's data in the response, at most.
const overhead = 110

// add appends a blob. A status that is absent means OK.
func (r *readResponse) add(d digest.Digest, data []byte, c repb.Compressor_Value, err error) {
	var st []byte
	n := 2 + sizeDigest(d)
	if len(data) > 0 {
		n += 1 + protowire.SizeBytes(len(data))
	}
	if err != nil {
		st = appendStatus(nil, 3, err)
		n += len(st)
	}
	if c != repb.Compressor_IDENTITY {
		n += 1 + protowire.SizeVarint(uint64(c))
	}
	b := protowire.AppendTag(*r.body, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	b = appendDigestField(b, 1, d)
	if len(data) > 0 {
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendBytes(b, data)
	}
	b = append(b, st...)
	if c != repb.Compressor_IDENTITY {
		b = protowire.AppendTag(b, 4, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(c))
	}
	*r.body = b
}

// batchRead answers BatchReadBlobs.
func (s *server) batchRead(ctx context.Context, req *readRequest) (*readResponse, error) {
	defer req.done()
	inst, err := s.instance(ctx, req.instance, Read)
	if err != nil {
		return nil, err
	}
	if req.err != nil {
		return nil, fail(req.err)
	}
	ds := req.digests
	var total int64
	for _, d := range ds {
		if total += d.Size(); total > MaxBatch || d.Size() > MaxBatch {
			return nil, status.Errorf(codes.InvalidArgument, "the batch asks for more than the %d bytes allowed: use ByteStream", MaxBatch)
		}
	}
	size := total + overhead*int64(len(ds))
	if size > 2*MaxBatch {
		return nil, status.Errorf(codes.InvalidArgument, "the batch asks for %d blobs, and the answer would have %d bytes: ask for fewer", len(ds), size)
	}
	release, err := s.budget.lease(ctx, size)
	if err != nil {
		return nil, err
	}

	zstd := slices.Contains(req.compressors, repb.Compressor_ZSTD)
	resp := newReadResponse(int(size), release)
	answered := make([]bool, len(ds))
	err = cache.GetAll(ctx, inst.CAS, ds, MaxBatch, func(i int, data []byte, err error) {
		answered[i] = true
		c := repb.Compressor_IDENTITY
		if err == nil && zstd && s.zstd.helps(data) {
			if small := s.zstd.deflate(data); len(small) < len(data) {
				data, c = small, repb.Compressor_ZSTD
			}
		}
		resp.add(ds[i], data, c, stored(err))
	})
	for i, ok := range answered {
		if !ok {
			resp.add(ds[i], nil, repb.Compressor_IDENTITY, stored(err))
		}
	}
	return resp, nil
}
