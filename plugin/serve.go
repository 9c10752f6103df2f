package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	hclog "github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/remote"
	pluginpb "github.com/pexpress/pexpress/plugin/proto/v1"
	"github.com/pexpress/pexpress/plugin/sandbox"
)

// Serve is the main of a builder: it serves b to the host that started this process, until the host ends it or goes
// away. Started by hand it says so and returns an error.
func Serve(b Builder) error {
	if os.Getenv(handshake.MagicCookieKey) != handshake.MagicCookieValue {
		return errors.New("this is a pexpress builder plugin: pexpress starts it by itself, there is nothing to run by hand")
	}
	if err := checkOffer(); err != nil {
		return err
	}
	if lifeline := sandbox.Lifeline(); lifeline != nil {
		go func() {
			_, _ = io.Copy(io.Discard, lifeline)
			sandbox.EndGroup() // the host is gone: nobody is there to return to
		}()
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: handshake,
		Plugins:         goplugin.PluginSet{pluginName: &grpcPlugin{builder: b, stderr: os.Stderr}},
		GRPCServer:      newServer,
		Logger:          hclog.NewNullLogger(),
	})
	return nil
}

func newServer(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))...)
}

// grpcPlugin joins go-plugin and the generated code. A builder process sets builder, a host does not.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	builder Builder
	stderr  *os.File
}

// GRPCServer implements goplugin.GRPCPlugin.
func (p *grpcPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	pluginpb.RegisterBuilderServer(s, &builderServer{builder: p.builder, stderr: p.stderr})
	return nil
}

// GRPCClient implements goplugin.GRPCPlugin.
func (p *grpcPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return pluginpb.NewBuilderClient(conn), nil
}

// builderServer is the edge at which a Builder's errors become gRPC codes.
type builderServer struct {
	pluginpb.UnimplementedBuilderServer
	builder Builder
	stderr  *os.File
	once    sync.Once
}

// restore undoes that go-plugin takes os.Stderr away to carry it over gRPC: what a builder says right before it exits
// would be lost on that way.
func (s *builderServer) restore() { s.once.Do(func() { os.Stderr = s.stderr }) }

// Describe implements pluginpb.BuilderServer.
func (s *builderServer) Describe(ctx context.Context, _ *pluginpb.DescribeRequest) (*pluginpb.DescribeResponse, error) {
	s.restore()
	d, err := s.builder.Describe(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return &pluginpb.DescribeResponse{Name: d.Name, OutputVersion: d.OutputVersion, Kinds: d.Kinds}, nil
}

// Build implements pluginpb.BuilderServer.
func (s *builderServer) Build(ctx context.Context, req *pluginpb.BuildRequest) (*pluginpb.BuildResponse, error) {
	s.restore()
	action, err := digest.FromProto(req.GetActionDigest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	cas, err := remote.Dial(ctx, req.GetCasEndpoint())
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, fmt.Sprintf("connect to the CAS endpoint: %v", err))
	}
	defer cas.Close()
	result, err := s.builder.Build(ctx, cas, action)
	if err != nil {
		return nil, toStatus(err)
	}
	return &pluginpb.BuildResponse{ActionResult: result}, nil
}

func toStatus(err error) error {
	code := codes.Unknown
	switch {
	case errors.Is(err, ErrInvalidAction):
		code = codes.InvalidArgument
	case errors.Is(err, ErrInputUnreadable):
		code = codes.FailedPrecondition
	case errors.Is(err, ErrOutputVersion):
		code = codes.Unimplemented
	}
	return status.Error(code, err.Error())
}
