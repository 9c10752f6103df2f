package server

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// casDesc is the generated description of the ContentAddressableStorage, with lean messages where there are many digests.
func casDesc() *grpc.ServiceDesc {
	desc := repb.ContentAddressableStorage_ServiceDesc
	lean := map[string]grpc.MethodDesc{}
	for _, m := range []grpc.MethodDesc{
		leanMethod("FindMissingBlobs", (*server).findMissing),
		leanMethod("BatchUpdateBlobs", (*server).batchUpdate),
		leanMethod("BatchReadBlobs", (*server).batchRead),
	} {
		lean[m.MethodName] = m
	}
	desc.Methods = nil
	for _, m := range repb.ContentAddressableStorage_ServiceDesc.Methods {
		if l, ok := lean[m.MethodName]; ok {
			m = l
		}
		desc.Methods = append(desc.Methods, m)
	}
	return &desc
}

// leanMethod describes a method as the generated code does.
func leanMethod[Req any, Resp proto.Message](name string, method func(*server, context.Context, *Req) (Resp, error)) grpc.MethodDesc {
	full := "/" + repb.ContentAddressableStorage_ServiceDesc.ServiceName + "/" + name
	return grpc.MethodDesc{
		MethodName: name,
		Handler: func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			req := new(Req)
			if err := dec(req); err != nil {
				return nil, err
			}
			if intercept == nil {
				return method(srv.(*server), ctx, req)
			}
			info := &grpc.UnaryServerInfo{Server: srv, FullMethod: full}
			return intercept(ctx, req, info, func(ctx context.Context, req any) (any, error) {
				return method(srv.(*server), ctx, req.(*Req))
			})
		},
	}
}
