package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// The methods that are measured.
const (
	batchUpdate  = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs"
	batchRead    = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs"
	findMissing  = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs"
	updateAction = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult"
	getAction    = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult"
	streamRead   = "/google.bytestream.ByteStream/Read"
	streamWrite  = "/google.bytestream.ByteStream/Write"
)

// maxMessage is above every message here: FindMissing of 10,000 takes 750 KiB, a batch at most 4 MiB.
const maxMessage = 16 << 20

// message is an encoded message, made before the clock starts.
type message struct{ parts mem.BufferSlice }

func encoded(parts ...[]byte) *message {
	m := new(message)
	for _, p := range parts {
		m.parts = append(m.parts, mem.SliceBuffer(p))
	}
	return m
}

// answer receives encoded messages. Their bytes are copied only where keep is set.
type answer struct {
	keep   bool
	size   int
	head   [16]byte // of the message: enough for a tag and a length
	headed int
	bytes  []byte
}

// raw is the codec of both ends: it hands bytes through, so that neither the generator nor the null server spends time
// on protocol buffers.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*message)
	if !ok {
		return nil, fmt.Errorf("raw codec: cannot send a %T", v)
	}
	return m.parts, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	a, ok := v.(*answer)
	if !ok {
		return fmt.Errorf("raw codec: cannot receive a %T", v)
	}
	a.size = data.Len()
	a.headed = 0
	for _, b := range data {
		if a.headed += copy(a.head[a.headed:], b.ReadOnlyData()); a.headed == len(a.head) {
			break
		}
	}
	if a.keep {
		if cap(a.bytes) < a.size {
			a.bytes = make([]byte, a.size)
		}
		a.bytes = a.bytes[:a.size]
		data.CopyTo(a.bytes)
	}
	return nil
}

// client is one client of the load: one call at a time, and the room for its answer.
type client struct {
	conn   *grpc.ClientConn
	answer answer
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithReadBufferSize(128<<10), grpc.WithWriteBufferSize(128<<10), grpc.WithDisableServiceConfig())
}

// call makes a unary call. A ByteStream Write of one message looks the same on the wire.
func (c *client) call(ctx context.Context, method string, req *message, keep bool) error {
	c.answer.keep = keep
	return c.conn.Invoke(ctx, method, req, &c.answer)
}

var readStream = &grpc.StreamDesc{ServerStreams: true}

// download makes a ByteStream Read and calls each with every answer.
func (c *client) download(ctx context.Context, req *message, keep bool, each func(*answer) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.conn.NewStream(ctx, readStream, streamRead)
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	c.answer.keep = keep
	for {
		if err := s.RecvMsg(&c.answer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := each(&c.answer); err != nil {
			return err
		}
	}
}

var writeStream = &grpc.StreamDesc{ClientStreams: true}

// upload makes a ByteStream Write of several messages and leaves the answer in c.answer.
func (c *client) upload(ctx context.Context, reqs []*message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.conn.NewStream(ctx, writeStream, streamWrite)
	if err != nil {
		return err
	}
	for _, m := range reqs {
		if err := s.SendMsg(m); errors.Is(err, io.EOF) {
			break // the server has answered already
		} else if err != nil {
			return err
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	c.answer.keep = true
	return s.RecvMsg(&c.answer)
}
