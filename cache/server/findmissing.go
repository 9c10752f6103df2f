package server

import (
	"context"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pexpress/pexpress/cache/digest"
)

// findRequest is a repb.FindMissingBlobsRequest.
type findRequest struct {
	instance string
	digests  []digest.Digest
	err      error // what is wrong with them
}

// GetInstanceName is what the generated message has, too.
func (r *findRequest) GetInstanceName() string { return r.instance }

func (r *findRequest) ProtoReflect() protoreflect.Message { return leanMessage{findRequestType, r} }
func (r *findRequest) Reset()                             { *r = findRequest{} }
func (r *findRequest) size() int                          { return 0 }
func (r *findRequest) marshal(b []byte) []byte            { return b }

// digestLists are the digests of requests that were answered.
var digestLists = sync.Pool{New: func() any { return new([]digest.Digest) }}

func (r *findRequest) unmarshal(b []byte) error {
	return r.parse(b, 3, func(protowire.Number, []byte, uint64) {})
}

// parse reads a request of an instance name (field 1), digests (2), their function, and other fields.
func (r *findRequest) parse(b []byte, function protowire.Number, other func(protowire.Number, []byte, uint64)) error {
	r.digests = (*digestLists.Get().(*[]digest.Digest))[:0]
	fn := digest.SHA256
	err := fields(b, func(num protowire.Number, content []byte, value uint64) (err error) {
		switch num {
		case 1:
			r.instance = string(content)
		case 2:
			var d digest.Digest
			if d, err = leanDigest(content); err == nil {
				r.digests = append(r.digests, d)
			}
		case function:
			fn, err = leanFunction(value)
		default:
			other(num, content, value)
		}
		if err != nil && r.err == nil {
			r.err = err
		}
		return nil
	})
	convert(r.digests, fn)
	return err
}

// done gives back the list of digests.
func (r *findRequest) done() {
	list := r.digests[:0]
	r.digests = nil
	digestLists.Put(&list)
}

// findResponse is a repb.FindMissingBlobsResponse.
type findResponse struct{ missing []digest.Digest }

func (r *findResponse) ProtoReflect() protoreflect.Message { return leanMessage{findResponseType, r} }
func (r *findResponse) Reset()                             { *r = findResponse{} }
func (r *findResponse) unmarshal([]byte) error             { return nil }

func (r *findResponse) size() int {
	n := 0
	for _, d := range r.missing {
		n += 2 + sizeDigest(d)
	}
	return n
}

func (r *findResponse) marshal(b []byte) []byte {
	for _, d := range r.missing {
		b = appendDigestField(b, 2, d)
	}
	return b
}

// findMissing answers FindMissingBlobs.
func (s *server) findMissing(ctx context.Context, req *findRequest) (*findResponse, error) {
	inst, err := s.instance(ctx, req.instance, Read)
	if err != nil {
		return nil, err
	}
	if req.err != nil {
		return nil, fail(req.err)
	}
	missing, err := inst.CAS.FindMissing(ctx, req.digests)
	if err != nil {
		return nil, fail(err)
	}
	if len(missing) == 0 { // else they may be a part of the request
		req.done()
	}
	return &findResponse{missing}, nil
}
