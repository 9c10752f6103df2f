package sandbox

import (
	"errors"
	"net"
	"os"

	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/server"
)

// maxRequest bounds one message to the endpoint: twice what a batch may hold.
const maxRequest = 8 << 20

// Endpoint is a CAS served on a unix socket.
type Endpoint struct {
	server  *grpc.Server
	service *server.Service
	socket  string
}

// ServeCAS serves cas, by REAPI, on a new unix socket until Close.
func ServeCAS(socket string, cas cache.CAS) (*Endpoint, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	// When Stop returns nobody works on the cache any more, so that its owner may close it.
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), grpc.WaitForHandlers(true))
	service := server.Register(s, server.Single(cas, nil))
	go func() { _ = s.Serve(l) }()
	return &Endpoint{s, service, socket}, nil
}

// Close ends the server and removes its socket.
func (e *Endpoint) Close() error {
	e.server.Stop()
	e.service.Close()
	if err := os.Remove(e.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
