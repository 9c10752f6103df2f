package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
)

// open are the services that answer everyone: probes have no credentials, and learn only whether the server serves.
const open = "/grpc.health.v1.Health/"

// Unary is the interceptor that puts the principal of a unary call into its context, or refuses the call.
func (a *Authenticator) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := a.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// Stream is the interceptor that puts the principal of a stream into its context, or refuses the stream.
func (a *Authenticator) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := a.enter(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return next(srv, &withContext{stream, ctx})
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *withContext) Context() context.Context { return s.ctx }

func (a *Authenticator) enter(ctx context.Context, method string) (context.Context, error) {
	if strings.HasPrefix(method, open) {
		return ctx, nil
	}
	c, err := shown(ctx)
	if err == nil {
		var name string
		if name, err = a.Principal(ctx, c); err == nil {
			return cache.WithPrincipal(ctx, name), nil
		}
	}
	return nil, status.Error(code(err), err.Error())
}

func code(err error) codes.Code {
	if errors.Is(err, ErrUnavailable) {
		return codes.Unavailable
	}
	return codes.Unauthenticated
}

// shown collects the credentials of a call.
func shown(ctx context.Context) (Credentials, error) {
	var c Credentials
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			c.Certificate = leaf(&info.State)
		}
	}
	switch headers := metadata.ValueFromIncomingContext(ctx, "authorization"); len(headers) {
	case 0:
		return c, nil
	case 1:
		var err error
		c.Token, err = bearerToken(headers[0])
		return c, err
	default:
		return c, fmt.Errorf("%w: the call has %d authorization headers", ErrRefused, len(headers))
	}
}

// leaf returns the client's certificate if its chain was verified.
func leaf(state *tls.ConnectionState) *x509.Certificate {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	return state.VerifiedChains[0][0]
}

func bearerToken(header string) (string, error) {
	scheme, token, _ := strings.Cut(header, " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "bearer") || token == "" {
		return "", fmt.Errorf("%w: the authorization header is not of the form 'Bearer TOKEN'", ErrRefused)
	}
	return token, nil
}
