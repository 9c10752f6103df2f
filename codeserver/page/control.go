package page

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/codeserver/access"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// control calls the control API within the process, as the principal of the context: the policy's interceptors see each
// call as if it had come over gRPC.
type control struct {
	server codeserverpb.CodeServerServer
	policy *access.Policy // nil: everyone may do everything
}

// may reports whether the principal of a context has a right on a location.
func (c *control) may(ctx context.Context, right access.Right, location string) bool {
	return c.policy == nil || c.policy.May(cache.PrincipalOf(ctx), right, location)
}

// list returns the locations that the caller may read.
func (c *control) list(ctx context.Context) ([]*codeserverpb.Location, error) {
	call := func(ctx context.Context, req any) (any, error) {
		return c.server.List(ctx, req.(*codeserverpb.ListRequest))
	}
	if c.policy != nil {
		inner := call
		call = func(ctx context.Context, req any) (any, error) {
			info := &grpc.UnaryServerInfo{Server: c.server, FullMethod: codeserverpb.CodeServer_List_FullMethodName}
			return c.policy.Unary(ctx, req, info, inner)
		}
	}
	resp, err := call(ctx, &codeserverpb.ListRequest{})
	if err != nil {
		return nil, err
	}
	return resp.(*codeserverpb.ListResponse).GetLocations(), nil
}

// stream calls a method that answers with a stream, and hands each message to send, whose error ends the call.
func (c *control) stream(ctx context.Context, method string, req proto.Message, send func(proto.Message) error) error {
	for _, d := range codeserverpb.CodeServer_ServiceDesc.Streams {
		full := "/" + codeserverpb.CodeServer_ServiceDesc.ServiceName + "/" + d.StreamName
		if full != method {
			continue
		}
		s := &localStream{ctx: ctx, req: req, send: send}
		if c.policy == nil {
			return d.Handler(c.server, s)
		}
		return c.policy.Stream(c.server, s, &grpc.StreamServerInfo{FullMethod: full, IsServerStream: true}, d.Handler)
	}
	return fmt.Errorf("no method %s answers with a stream", method)
}

// localStream is a stream that does not leave the process.
type localStream struct {
	grpc.ServerStream // nil: nothing else of it is used
	ctx               context.Context
	req               proto.Message
	send              func(proto.Message) error
}

// Context implements grpc.ServerStream.
func (s *localStream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream: the one request.
func (s *localStream) RecvMsg(m any) error {
	proto.Merge(m.(proto.Message), s.req)
	return nil
}

// SendMsg implements grpc.ServerStream.
func (s *localStream) SendMsg(m any) error { return s.send(m.(proto.Message)) }
