package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/remote"
	"github.com/pexpress/pexpress/plugin"
	pluginpb "github.com/pexpress/pexpress/plugin/proto/v1"
	"github.com/pexpress/pexpress/plugin/sandbox"
)

// unhealthy serves a builder that has all but the health service.
func unhealthy(socket string) int {
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, sandbox.Lifeline())
		os.Exit(1)
	}()
	s := grpc.NewServer()
	pluginpb.RegisterBuilderServer(s, &bare{b: &builder{fault: "none", seen: map[string]digest.Digest{}}})
	fmt.Printf("1|1|unix|%s|grpc\n", socket)
	_ = s.Serve(l)
	return 0
}

// bare is a builder that is served without package plugin.
type bare struct {
	pluginpb.UnimplementedBuilderServer
	b *builder
}

// Describe implements pluginpb.BuilderServer.
func (s *bare) Describe(ctx context.Context, _ *pluginpb.DescribeRequest) (*pluginpb.DescribeResponse, error) {
	d, err := s.b.Describe(ctx)
	return &pluginpb.DescribeResponse{Name: d.Name, OutputVersion: d.OutputVersion, Kinds: d.Kinds}, err
}

// Build implements pluginpb.BuilderServer.
func (s *bare) Build(ctx context.Context, req *pluginpb.BuildRequest) (*pluginpb.BuildResponse, error) {
	action, err := digest.FromProto(req.GetActionDigest())
	if err != nil {
		return nil, err
	}
	cas, err := remote.Dial(ctx, req.GetCasEndpoint())
	if err != nil {
		return nil, err
	}
	defer cas.Close()
	result, err := s.b.Build(ctx, cas, action)
	for sentinel, code := range map[error]codes.Code{
		plugin.ErrInvalidAction: codes.InvalidArgument, plugin.ErrInputUnreadable: codes.FailedPrecondition, plugin.ErrOutputVersion: codes.Unimplemented,
	} {
		if errors.Is(err, sentinel) {
			return nil, status.Error(code, err.Error())
		}
	}
	return &pluginpb.BuildResponse{ActionResult: result}, err
}
