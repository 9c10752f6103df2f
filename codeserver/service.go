package codeserver

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// Kinds of errors, by what the one who deploys can do about them.
var (
	errRequest     = errors.New("request refused")
	errNotFound    = errors.New("not found")
	errRefused     = errors.New("cannot be done here")
	errNotReady    = errors.New("the version did not become ready")
	errAborted     = errors.New("aborted")
	errUnavailable = errors.New("not available")
)

// Register adds the control API to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	codeserverpb.RegisterCodeServerServer(r, &service{server: s})
}

// service is the edge at which errors become gRPC codes.
type service struct {
	codeserverpb.UnimplementedCodeServerServer
	server *Server
}

// Deploy implements codeserverpb.CodeServerServer.
func (s *service) Deploy(req *codeserverpb.DeployRequest, stream grpc.ServerStreamingServer[codeserverpb.DeployEvent]) error {
	d, err := s.server.deploy(stream.Context(), req, stages(stream))
	return finish(stream, d, err)
}

// Rollback implements codeserverpb.CodeServerServer.
func (s *service) Rollback(req *codeserverpb.RollbackRequest, stream grpc.ServerStreamingServer[codeserverpb.DeployEvent]) error {
	d, err := s.server.rollback(stream.Context(), req, stages(stream))
	return finish(stream, d, err)
}

// stages sends each step; one that cannot be sent ends the deploy through the stream's context.
func stages(stream grpc.ServerStreamingServer[codeserverpb.DeployEvent]) report {
	return func(st *codeserverpb.Stage) {
		_ = stream.Send(&codeserverpb.DeployEvent{Event: &codeserverpb.DeployEvent_Stage{Stage: st}})
	}
}

func finish(stream grpc.ServerStreamingServer[codeserverpb.DeployEvent], d *codeserverpb.Deployed, err error) error {
	if err != nil {
		return toStatus(err)
	}
	return stream.Send(&codeserverpb.DeployEvent{Event: &codeserverpb.DeployEvent_Deployed{Deployed: d}})
}

func toStatus(err error) error {
	err = loadError(err)
	code := codes.Unknown
	switch {
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, errRequest):
		code = codes.InvalidArgument
	case errors.Is(err, errNotFound):
		code = codes.NotFound
	case errors.Is(err, errRefused), errors.Is(err, errNotReady):
		code = codes.FailedPrecondition
	case errors.Is(err, errAborted):
		code = codes.Aborted
	case errors.Is(err, errUnavailable):
		code = codes.Unavailable
	}
	return status.Error(code, err.Error())
}

// List implements codeserverpb.CodeServerServer.
func (s *service) List(context.Context, *codeserverpb.ListRequest) (*codeserverpb.ListResponse, error) {
	return &codeserverpb.ListResponse{Locations: s.server.messages("")}, nil
}

// messages returns the locations, or the one that is named.
func (s *Server) messages(name string) []*codeserverpb.Location {
	var all []*codeserverpb.Location
	for _, l := range s.all() {
		if name == "" || l.name == name {
			s.mu.Lock()
			all = append(all, l.message())
			s.mu.Unlock()
		}
	}
	return all
}

// Watch implements codeserverpb.CodeServerServer.
func (s *service) Watch(req *codeserverpb.WatchRequest, stream grpc.ServerStreamingServer[codeserverpb.Location]) error {
	changes, stop := s.server.watch()
	defer stop()
	sent := map[string]*codeserverpb.Location{}
	for {
		for _, m := range s.server.messages(req.GetLocation()) {
			if proto.Equal(sent[m.GetName()], m) {
				continue
			}
			sent[m.GetName()] = m
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		select {
		case <-changes:
		case <-stream.Context().Done():
			return nil
		case <-s.server.ctx.Done():
			return status.Error(codes.Unavailable, "the codeserver is ending")
		}
	}
}

// watch returns a channel that is sent to when something has changed.
func (s *Server) watch() (changes <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.watchers[c] = true
	s.mu.Unlock()
	return c, func() {
		s.mu.Lock()
		delete(s.watchers, c)
		s.mu.Unlock()
	}
}

// changed tells those who watch.
func (s *Server) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Logs implements codeserverpb.CodeServerServer.
func (s *service) Logs(req *codeserverpb.LogsRequest, stream grpc.ServerStreamingServer[codeserverpb.LogLine]) error {
	l, v, err := s.server.findVersion(req.GetLocation(), req.GetVersion())
	if err != nil {
		return toStatus(err)
	}
	s.server.mu.Lock()
	book := v.log
	s.server.mu.Unlock()
	err = readLog(stream.Context(), s.server.logPath(l, v), book, int(req.GetTail()), req.GetFollow(), func(line logLine) error {
		return stream.Send(&codeserverpb.LogLine{Time: timestamppb.New(line.at), Version: v.name, Text: line.text})
	})
	if err != nil {
		return toStatus(err)
	}
	return nil
}

func (s *Server) findVersion(name, prefix string) (*location, *version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.locations[name]
	if !ok {
		return nil, nil, fmt.Errorf("%w: no location %q", errNotFound, name)
	}
	v := l.current
	if prefix != "" {
		var err error
		if v, err = l.find(prefix); err != nil {
			return nil, nil, err
		}
	}
	if v == nil {
		return nil, nil, fmt.Errorf("%w: location %s serves no version", errNotFound, name)
	}
	return l, v, nil
}
