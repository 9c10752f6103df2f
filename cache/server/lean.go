package server

import (
	"fmt"
	"unsafe"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"

	"github.com/pexpress/pexpress/cache/digest"
)

// The messages of FindMissingBlobs, BatchUpdateBlobs and BatchReadBlobs are read and written by hand: a request names up
// to tens of thousands of digests, and for each the generated code would allocate a message and a string, which would
// cost several times what it costs to look a digest up.
//
// A lean message stands for a generated one. To the protobuf library it is that message, with encodings of its own.
type lean interface {
	Reset()
	unmarshal(b []byte) error // b is only lent
	size() int
	marshal(b []byte) []byte // appends
}

type leanMessage struct {
	protoreflect.Message // of the generated type, for its descriptor
	m                    interface {
		lean
		proto.Message
	}
}

func (l leanMessage) Interface() protoreflect.ProtoMessage { return l.m }

func (l leanMessage) ProtoMethods() *protoiface.Methods { return leanMethods }

var leanMethods = &protoiface.Methods{
	Size: func(in protoiface.SizeInput) protoiface.SizeOutput {
		return protoiface.SizeOutput{Size: in.Message.(leanMessage).m.size()}
	},
	Marshal: func(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
		return protoiface.MarshalOutput{Buf: in.Message.(leanMessage).m.marshal(in.Buf)}, nil
	},
	Unmarshal: func(in protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
		return protoiface.UnmarshalOutput{Flags: protoiface.UnmarshalInitialized}, in.Message.(leanMessage).m.unmarshal(in.Buf)
	},
}

var (
	findRequestType   = (&repb.FindMissingBlobsRequest{}).ProtoReflect()
	findResponseType  = (&repb.FindMissingBlobsResponse{}).ProtoReflect()
	updateRequestType = (&repb.BatchUpdateBlobsRequest{}).ProtoReflect()
	updateAnswerType  = (&repb.BatchUpdateBlobsResponse{}).ProtoReflect()
	readRequestType   = (&repb.BatchReadBlobsRequest{}).ProtoReflect()
	readResponseType  = (&repb.BatchReadBlobsResponse{}).ProtoReflect()
)

// fields calls f for each field of a message, with its content (of a length-delimited field) or value (of a varint).
func fields(b []byte, f func(num protowire.Number, content []byte, value uint64) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var content []byte
		var value uint64
		switch typ {
		case protowire.BytesType:
			content, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		default:
			num, n = 0, protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(num, content, value); err != nil {
			return err
		}
	}
	return nil
}

// leanDigest reads a Digest message as one of sha256.
func leanDigest(b []byte) (digest.Digest, error) {
	var hash []byte
	var size uint64
	// The encoding that everyone uses: hash, 64 digits, then size.
	if len(b) > 67 && b[0] == 1<<3|2 && b[1] == 64 && b[66] == 2<<3 {
		if v, n := protowire.ConsumeVarint(b[67:]); n == len(b)-67 {
			return digest.SHA256.New(lent(b[2:66]), int64(v))
		}
	}
	err := fields(b, func(num protowire.Number, content []byte, value uint64) error {
		switch num {
		case 1:
			hash = content
		case 2:
			size = value
		}
		return nil
	})
	if err != nil {
		return digest.Digest{}, err
	}
	return digest.SHA256.New(lent(hash), int64(size))
}

// lent returns b as a string that is not kept.
func lent(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// convert makes digests that were read as ones of sha256 into ones of another function, which may stand behind them in the
// request.
func convert(ds []digest.Digest, fn digest.Function) {
	if fn == digest.SHA256 || fn == 0 {
		return
	}
	for i, d := range ds {
		ds[i] = converted(d, fn)
	}
}

func converted(d digest.Digest, fn digest.Function) digest.Digest {
	if d.IsZero() {
		return d
	}
	return fn.FromSum(d.Sum(), d.Size())
}

// sizeDigest is the length of appendDigest's result.
func sizeDigest(d digest.Digest) int {
	n := 2 + 2*digest.Size
	if d.Size() > 0 {
		n += 1 + protowire.SizeVarint(uint64(d.Size()))
	}
	return n
}

const hexDigits = "0123456789abcdef"

// appendDigest appends a Digest message.
func appendDigest(b []byte, d digest.Digest) []byte {
	b = append(b, 1<<3|2, 2*digest.Size)
	for _, c := range d.Sum() {
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	if d.Size() > 0 {
		b = append(b, 2<<3)
		b = protowire.AppendVarint(b, uint64(d.Size()))
	}
	return b
}

// appendDigestField appends a length-delimited field whose content is d.
func appendDigestField(b []byte, num protowire.Number, d digest.Digest) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeDigest(d)))
	return appendDigest(b, d)
}

// leanFunction is function for a value read by hand.
func leanFunction(v uint64) (digest.Function, error) {
	if v > 1<<16 {
		return 0, fmt.Errorf("%w: digest function %d is not known", digest.ErrInvalid, v)
	}
	return digest.FunctionFromProto(repb.DigestFunction_Value(v))
}
