package codeserver

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// TestExpect: a deploy is expected of whoever connects, once, before anything is asked.
func TestExpect(t *testing.T) {
	expected := make(chan time.Duration, 10)
	s := &Server{expect: func(d time.Duration) { expected <- d }}
	g := grpc.NewServer(s.CallOptions()...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = g.Serve(l) }()
	defer g.Stop()
	for range 2 {
		conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		conn.Connect()
		require.Equal(t, expectDeploy, <-expected)
		require.Error(t, conn.Invoke(t.Context(), "/nobody/Nothing", nil, nil))
		require.NoError(t, conn.Close())
	}
	require.Empty(t, expected)
}
