package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// serving waits until a server answers.
func (b *bench) serving(address string, answers func(address string) bool) error {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err != nil {
			continue
		} else if c.Close() == nil && answers(address) {
			return nil
		}
	}
	return fmt.Errorf("%s does not serve", address)
}

// healthy reports whether a Dagster code server says so of itself.
func (b *bench) healthy(address string) bool {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: "DagsterApi"})
	return err == nil && r.GetStatus() == healthpb.HealthCheckResponse_SERVING
}

// greets reports whether asgi-hello answers.
func (b *bench) greets(address string) bool {
	resp, err := http.Get("http://" + address + "/healthz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
