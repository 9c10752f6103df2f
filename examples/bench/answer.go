package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
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

// another reports whether a Dagster code server answers, and another one than the last time: each process makes up an id.
func (b *bench) another(address string) bool {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	var id wrapperspb.StringValue // a GetServerIdReply has the same form
	err = conn.Invoke(ctx, "/api.DagsterApi/GetServerId", &emptypb.Empty{}, &id)
	if err != nil || id.GetValue() == "" || id.GetValue() == b.server {
		return false
	}
	b.server = id.GetValue()
	return true
}

// greets reports whether asgi-hello answers as it was edited last.
func (b *bench) greets(address string) bool {
	resp, err := http.Get("http://" + address + "/")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return err == nil && strings.HasPrefix(string(body), fmt.Sprintf("Edit %d,", b.count))
}
