package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// Error is a call that a codeserver refused or did not answer.
type Error struct {
	Addr string // the codeserver's, as Dial was given it
	Err  error  // carries the call's status
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus lets package status find the call's status.
func (e *Error) GRPCStatus() *status.Status { return status.Convert(e.Err) }

// naming has errors of calls know whose they are. What has no status, the end of a stream for one, stays as it is.
type naming struct{ addr string }

func (n naming) err(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); !ok {
		return err
	}
	return &Error{n.addr, err}
}

func (n naming) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			return n.err(invoke(ctx, method, req, reply, conn, opts...))
		}),
		grpc.WithChainStreamInterceptor(func(
			ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			s, err := open(ctx, desc, conn, method, opts...)
			if err != nil {
				return nil, n.err(err)
			}
			return &namedStream{s, n}, nil
		}),
	}
}

type namedStream struct {
	grpc.ClientStream
	naming
}

func (s *namedStream) SendMsg(m any) error { return s.err(s.ClientStream.SendMsg(m)) }

func (s *namedStream) RecvMsg(m any) error { return s.err(s.ClientStream.RecvMsg(m)) }
