package observe

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Unary is the interceptor that counts unary calls. It comes before all others.
func (v *Observer) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, c := v.begin(ctx, method(info.FullMethod))
	code := codes.Internal // a handler that panics leaves it
	var err error
	defer func() { v.end(ctx, c, code.String(), kind(code), err) }()
	resp, err := next(ctx, req)
	if code = status.Code(err); kind(code) != fine {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-request-id", c.id)) // fails only where there is no one to read it
	}
	return resp, err
}

// Stream is the interceptor that counts streams. It comes before all others.
func (v *Observer) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, c := v.begin(stream.Context(), method(info.FullMethod))
	code := codes.Internal
	var err error
	defer func() { v.end(ctx, c, code.String(), kind(code), err) }()
	err = next(srv, &observedStream{stream, ctx})
	if code = status.Code(err); kind(code) != fine {
		stream.SetTrailer(metadata.Pairs("x-request-id", c.id))
	}
	return err
}

type observedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *observedStream) Context() context.Context { return s.ctx }

// method shortens /build.bazel.remote.execution.v2.ActionCache/GetActionResult to ActionCache/GetActionResult. Only
// methods that are registered come here, so that they are few.
func method(full string) string {
	full = strings.TrimPrefix(full, "/")
	service, name, ok := strings.Cut(full, "/")
	if !ok {
		return full
	}
	return service[strings.LastIndexByte(service, '.')+1:] + "/" + name
}

func kind(code codes.Code) failure {
	switch code {
	case codes.OK, codes.NotFound, codes.Canceled:
		return fine
	case codes.Unavailable, codes.Internal, codes.DataLoss, codes.Unknown, codes.DeadlineExceeded:
		return ours
	}
	return theirs
}
