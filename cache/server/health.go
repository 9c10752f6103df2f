package server

import (
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
)

// RegisterHealth adds gRPC's health and reflection services to s. What it returns says "serving", of the server as a
// whole and of each service of a cache, until it is told otherwise; Shutdown turns all of them to "not serving".
func RegisterHealth(s *grpc.Server) *health.Server {
	h := health.NewServer()
	for _, name := range []string{
		repb.Capabilities_ServiceDesc.ServiceName, repb.ContentAddressableStorage_ServiceDesc.ServiceName,
		repb.ActionCache_ServiceDesc.ServiceName, "google.bytestream.ByteStream",
	} {
		h.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING)
	}
	healthpb.RegisterHealthServer(s, h)
	reflection.Register(s)
	return h
}
