package access

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// Unary is the interceptor that applies the policy to a unary call. The principal is in the context by then.
func (p *Policy) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	who := cache.PrincipalOf(ctx)
	if err := p.allow(who, info.FullMethod, req); err != nil {
		return nil, err
	}
	resp, err := next(ctx, req)
	if list, ok := resp.(*codeserverpb.ListResponse); ok && err == nil {
		return p.filter(who, list), nil
	}
	return resp, err
}

// Stream is the interceptor that applies the policy to a stream: to its request, and to each location that it sends.
func (p *Policy) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	who := cache.PrincipalOf(stream.Context())
	if _, ok := rules[info.FullMethod]; !ok {
		return unknown(who, info.FullMethod)
	}
	return next(srv, &guarded{stream, p, who, info.FullMethod})
}

// guarded is a stream whose messages the policy sees.
type guarded struct {
	grpc.ServerStream
	policy *Policy
	who    string
	method string
}

// RecvMsg implements grpc.ServerStream.
func (g *guarded) RecvMsg(m any) error {
	if err := g.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return g.policy.allow(g.who, g.method, m)
}

// SendMsg implements grpc.ServerStream. A location that the caller may not read is not sent.
func (g *guarded) SendMsg(m any) error {
	if l, ok := m.(*codeserverpb.Location); ok && !g.policy.May(g.who, Read, l.GetName()) {
		return nil
	}
	return g.ServerStream.SendMsg(m)
}

// allow refuses a request that a principal may not make.
func (p *Policy) allow(who, method string, req any) error {
	r, ok := rules[method]
	m, isMessage := req.(proto.Message)
	if !ok || !isMessage {
		return unknown(who, method)
	}
	locations := r.locations(m)
	if len(locations) == 0 && !r.all {
		return status.Error(codes.InvalidArgument, "the request names no location")
	}
	for _, l := range locations {
		if !p.May(who, r.right, l) {
			return status.Errorf(codes.PermissionDenied,
				"%s has no right to %s the location %.80q: who runs the codeserver can grant it", who, r.right, l)
		}
	}
	return nil
}

func unknown(who, method string) error {
	return status.Errorf(codes.PermissionDenied, "%s may not call %.200s: no right is for it", who, method)
}

func (p *Policy) filter(who string, list *codeserverpb.ListResponse) *codeserverpb.ListResponse {
	shown := &codeserverpb.ListResponse{}
	for _, l := range list.GetLocations() {
		if p.May(who, Read, l.GetName()) {
			shown.Locations = append(shown.Locations, l)
		}
	}
	return shown
}
