package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/pexpress/pexpress/cache/digest"
)

// fill gives every field a value that makes the request well formed, whatever the method: an instance's name, digests
// and content of one blob, and a resource name.
func fill(m protoreflect.Message, method, instance string, blob []byte, depth int) {
	if depth > 4 {
		return
	}
	d := digest.FromBytes(blob)
	if string(m.Descriptor().FullName()) == "build.bazel.remote.execution.v2.Digest" {
		fields := m.Descriptor().Fields()
		m.Set(fields.ByName("hash"), protoreflect.ValueOfString(d.Hash()))
		m.Set(fields.ByName("size_bytes"), protoreflect.ValueOfInt64(d.Size()))
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
		case f.Name() == "instance_name":
			m.Set(f, protoreflect.ValueOfString(instance))
		case f.Name() == "resource_name" && strings.HasSuffix(method, "/Read"):
			m.Set(f, protoreflect.ValueOfString(instance+"/blobs/"+d.String()))
		case f.Name() == "resource_name":
			m.Set(f, protoreflect.ValueOfString(instance+"/uploads/11111111-1111-1111-1111-111111111111/blobs/"+d.String()))
		case f.Name() == "uris":
			m.Mutable(f).List().Append(protoreflect.ValueOfString("https://example.invalid/file"))
		case f.Name() == "finish_write":
			m.Set(f, protoreflect.ValueOfBool(true))
		case f.Kind() == protoreflect.BytesKind && f.Name() == "data":
			m.Set(f, protoreflect.ValueOfBytes(blob))
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			list := m.Mutable(f).List()
			e := list.NewElement()
			fill(e.Message(), method, instance, blob, depth+1)
			list.Append(e)
		case f.Kind() == protoreflect.MessageKind && (strings.HasSuffix(string(f.Name()), "digest") || depth == 0 && f.Name() != "results_cache_policy"):
			fill(m.Mutable(f).Message(), method, instance, blob, depth+1)
		}
	}
}

// call makes a call of any method, and returns how it ended.
func call(t *testing.T, conn *grpc.ClientConn, method, instance string, blob []byte) error {
	t.Helper()
	service, name, _ := strings.Cut(method, "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	require.NoError(t, err, "what is served is described")
	m := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
	req, resp := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	fill(req, method, instance, blob, 0)
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return conn.Invoke(t.Context(), "/"+method, req, resp)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer()}, "/"+method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := s.RecvMsg(resp); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
