package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// null is a server that does nothing: what it shows is what grpc-go alone allows on this machine. It stores nothing,
// computes no hash and unmarshals nothing; of a request it looks at no more than how much is asked for, and answers with
// bytes made before, of the size that a real answer has.
type null struct {
	zeros   []byte
	updated *message // a BatchUpdateBlobsResponse
	batch   *message // a BatchReadBlobsResponse of inBatch blobs of smallSize
	result  *message // an ActionResult
	found   *message // a FindMissingBlobsResponse that misses nothing
	small   *message // a ReadResponse of smallSize
	written *message // a WriteResponse, of smallSize whatever was sent
}

// readChunk is how much data one ReadResponse of the null server holds.
const readChunk = 1 << 20

func newNull() *null {
	n := &null{zeros: make([]byte, 4<<20), found: encoded()}
	n.written = encoded(must(&bspb.WriteResponse{CommittedSize: smallSize}))
	name := newBlob(nil).hash
	updated, ar := new(repb.BatchUpdateBlobsResponse), &repb.ActionResult{StdoutRaw: make([]byte, 20)}
	d := &repb.Digest{Hash: name, SizeBytes: smallSize}
	for range inBatch {
		updated.Responses = append(updated.Responses, &repb.BatchUpdateBlobsResponse_Response{Digest: d})
	}
	ar.OutputFiles = []*repb.OutputFile{{Path: "bazel-out/bin/pkg/out0.o", Digest: d}}
	sizes := make([]int, inBatch)
	for i := range sizes {
		sizes[i] = smallSize
	}
	var flat []byte
	for _, part := range n.batchOf(sizes).parts {
		flat = append(flat, part.ReadOnlyData()...)
	}
	n.updated, n.result, n.batch = encoded(must(updated)), encoded(must(ar)), encoded(flat)
	n.small = encoded(append(n.readHead(smallSize), n.zeros[:smallSize]...))
	return n
}

func (n *null) readHead(size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, 10, protowire.BytesType), uint64(size))
}

// batchOf makes a BatchReadBlobsResponse of blobs of the given sizes.
func (n *null) batchOf(sizes []int) *message {
	m := new(message)
	for _, size := range sizes {
		head := protowire.AppendTag(nil, 1, protowire.BytesType)
		head = protowire.AppendBytes(head, must(&repb.Digest{Hash: newBlob(nil).hash, SizeBytes: int64(size)}))
		head = protowire.AppendVarint(protowire.AppendTag(head, 2, protowire.BytesType), uint64(size))
		entry := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), uint64(len(head)+size))
		m.parts = append(m.parts, encoded(append(entry, head...), n.zeros[:size]).parts...)
	}
	return m
}

// serveNull serves until the listener is closed.
func serveNull(l net.Listener) error {
	n := newNull()
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.MaxRecvMsgSize(maxMessage), grpc.UnknownServiceHandler(n.handle),
		grpc.ReadBufferSize(128<<10), grpc.WriteBufferSize(128<<10))
	return s.Serve(l)
}

func (n *null) handle(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	req := answer{keep: method == streamRead || method == batchRead}
	if err := s.RecvMsg(&req); err != nil {
		return err
	}
	switch method {
	case batchUpdate:
		return s.SendMsg(n.updated)
	case findMissing:
		return s.SendMsg(n.found)
	case updateAction, getAction:
		return s.SendMsg(n.result)
	case batchRead:
		return n.readBatch(s, req.bytes)
	case streamRead:
		return n.read(s, req.bytes)
	case streamWrite:
		return n.write(s, &req)
	}
	return status.Errorf(codes.Unimplemented, "the null server has no %s", method)
}

func (n *null) readBatch(s grpc.ServerStream, req []byte) error {
	var sizes []int
	same := true
	err := fields(req, func(num protowire.Number, d []byte) error {
		if num != 2 {
			return nil
		}
		size, _ := protowire.ConsumeVarint(d[bytes.IndexByte(d[66:], 0x10)+67:])
		same = same && size == smallSize
		sizes = append(sizes, int(size))
		return nil
	})
	if err != nil {
		return err
	}
	if same && len(sizes) == inBatch {
		return s.SendMsg(n.batch)
	}
	return s.SendMsg(n.batchOf(sizes))
}

func (n *null) read(s grpc.ServerStream, req []byte) error {
	size, err := strconv.Atoi(string(req[bytes.LastIndexByte(req, '/')+1:]))
	if err != nil {
		return fmt.Errorf("read request %q: %w", req, err)
	}
	if size == smallSize {
		return s.SendMsg(n.small)
	}
	for size > 0 {
		k := min(size, readChunk)
		if err := s.SendMsg(encoded(n.readHead(k), n.zeros[:k])); err != nil {
			return err
		}
		size -= k
	}
	return nil
}

func (n *null) write(s grpc.ServerStream, req *answer) error {
	for {
		if err := s.RecvMsg(req); errors.Is(err, io.EOF) {
			return s.SendMsg(n.written)
		} else if err != nil {
			return err
		}
	}
}
