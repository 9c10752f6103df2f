package codeserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache/digest"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
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
	return s.change(aDeploy, about(req), stream, func(ctx context.Context, r report) ([]*codeserverpb.Deployed, error) {
		return s.server.deployAll(ctx, []*codeserverpb.DeployRequest{req}, r)
	})
}

// DeployAll implements codeserverpb.CodeServerServer.
func (s *service) DeployAll(req *codeserverpb.DeployAllRequest, stream grpc.ServerStreamingServer[codeserverpb.DeployEvent]) error {
	if err := checkDeployAll(req); err != nil {
		return toStatus(err)
	}
	return s.change(aDeploy, about(req.GetDeploys()...), stream, func(ctx context.Context, r report) ([]*codeserverpb.Deployed, error) {
		return s.server.deployAll(ctx, req.GetDeploys(), r)
	})
}

// Rollback implements codeserverpb.CodeServerServer.
func (s *service) Rollback(req *codeserverpb.RollbackRequest, stream grpc.ServerStreamingServer[codeserverpb.DeployEvent]) error {
	of := []any{"location", limited(req.GetLocation()), "version", limited(req.GetVersion())}
	return s.change(aRollback, of, stream, func(ctx context.Context, r report) ([]*codeserverpb.Deployed, error) {
		return s.server.rollback(ctx, req, r)
	})
}

// Restart implements codeserverpb.CodeServerServer.
func (s *service) Restart(req *codeserverpb.RestartRequest, stream grpc.ServerStreamingServer[codeserverpb.DeployEvent]) error {
	return s.change(aRestart, []any{"location", limited(req.GetLocation())}, stream, func(ctx context.Context, r report) ([]*codeserverpb.Deployed, error) {
		return s.server.restart(ctx, req, r)
	})
}

// Remove implements codeserverpb.CodeServerServer.
func (s *service) Remove(ctx context.Context, req *codeserverpb.RemoveRequest) (*codeserverpb.RemoveResponse, error) {
	ctx, leave, err := s.server.enter(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	defer leave()
	if err := s.server.remove(ctx, req); err != nil {
		return nil, toStatus(err)
	}
	return &codeserverpb.RemoveResponse{}, nil
}

// asked is what a call has asked for, in the words of the log.
type asked struct{ done, failed string }

var (
	aDeploy   = asked{"deployed", "a deploy failed"}
	aRollback = asked{"rolled back", "a rollback failed"}
	aRestart  = asked{"restarted", "a restart failed"}
)

// change does what was asked for, and sends its steps and its end. The log says of a failure what it is of.
func (s *service) change(what asked, of []any, stream grpc.ServerStreamingServer[codeserverpb.DeployEvent],
	do func(context.Context, report) ([]*codeserverpb.Deployed, error),
) error {
	ctx, leave, err := s.server.enter(stream.Context())
	if err != nil {
		return toStatus(err)
	}
	done, err := do(ctx, stages(stream))
	leave() // who does not take the answer keeps nobody waiting
	if err != nil && s.server.ctx.Err() != nil && stream.Context().Err() == nil {
		err = errEnding // whatever has come of that: a cache of its own says so in its own way
	}
	if err != nil {
		s.server.opts.Log.WarnContext(ctx, what.failed, append(of, "error", firstLine(err.Error()))...)
		return toStatus(err)
	}
	for _, d := range done {
		if l := d.GetLocation(); !d.GetUnchanged() {
			s.server.opts.Log.InfoContext(ctx, what.done, "location", l.GetName(), "version", l.GetCurrent(), "address", l.GetAddress())
		}
		if err := stream.Send(&codeserverpb.DeployEvent{Event: &codeserverpb.DeployEvent_Deployed{Deployed: d}}); err != nil {
			return err
		}
	}
	return nil
}

// about says what deploys are of: location and version of one, the locations of several.
func about(reqs ...*codeserverpb.DeployRequest) []any {
	if len(reqs) == 1 {
		version := ""
		if _, d, err := digest.Marshal(reqs[0].GetSpec()); err == nil {
			version = d.Hash()
		}
		return []any{"location", limited(reqs[0].GetLocation()), "version", version}
	}
	var locations []string
	for _, r := range reqs {
		locations = append(locations, limited(r.GetLocation()))
	}
	return []any{"locations", locations}
}

// limited cuts what may not be a name, and may be long.
func limited(name string) string { return name[:min(len(name), 80)] }

// firstLine leaves out what an error quotes of a version's log.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// stages sends each step; one that cannot be sent ends the deploy through the stream's context.
func stages(stream grpc.ServerStreamingServer[codeserverpb.DeployEvent]) report {
	return func(st *codeserverpb.Stage) {
		_ = stream.Send(&codeserverpb.DeployEvent{Event: &codeserverpb.DeployEvent_Stage{Stage: st}})
	}
}

// List implements codeserverpb.CodeServerServer.
func (s *service) List(context.Context, *codeserverpb.ListRequest) (*codeserverpb.ListResponse, error) {
	return &codeserverpb.ListResponse{Locations: s.server.messages("")}, nil
}

// messages returns the locations, or the one that is named.
func (s *Server) messages(name string) []*codeserverpb.Location { return s.messagesOf(name, 0) }

// messagesOf is messages, but what was measured no longer than age ago is not measured again.
func (s *Server) messagesOf(name string, age time.Duration) []*codeserverpb.Location {
	var all []*codeserverpb.Location
	for _, l := range s.all() {
		var m *codeserverpb.Location
		s.mu.Lock()
		if (name == "" || l.name == name) && len(l.known()) > 0 {
			m = l.message()
		}
		s.mu.Unlock()
		if m != nil {
			s.measure(l, m, age)
			s.withPreloads(m)
			all = append(all, m)
		}
	}
	return s.withChannels(name, all)
}

// Logs implements codeserverpb.CodeServerServer.
func (s *service) Logs(req *codeserverpb.LogsRequest, stream grpc.ServerStreamingServer[codeserverpb.LogLine]) error {
	l, v, err := s.server.findVersion(req.GetLocation(), req.GetVersion())
	if err != nil {
		return toStatus(err)
	}
	if req.GetTail() < 0 {
		return toStatus(fmt.Errorf("%w: tail is %d", errRequest, req.GetTail()))
	}
	s.server.mu.Lock()
	book := v.log
	s.server.mu.Unlock()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.server.ctx, cancel)()
	r := logReader{path: s.server.logPath(l, v), book: book, send: func(line logLine) error {
		return stream.Send(&codeserverpb.LogLine{Time: line.time(), Version: v.name, Text: line.text})
	}}
	err = r.read(ctx, int(req.GetTail()), req.GetFollow())
	if s.server.ctx.Err() != nil && stream.Context().Err() == nil {
		err = errEnding
	}
	return toStatus(err)
}

// findVersion returns a location and a version of it whose log there is: the one that serves, or the one that is named.
func (s *Server) findVersion(name, prefix string) (*location, *version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.locations[name]
	failed := s.unservedOf(name)
	if !ok && len(failed) == 0 {
		return nil, nil, fmt.Errorf("%w: no location %.80q", errNotFound, name)
	}
	if !ok {
		l = failed[0].location // that was, until its first deploy failed
	}
	v := l.current
	if prefix != "" {
		var err error
		if v, err = l.find(slices.Concat(l.known(), failed), prefix); err != nil {
			return nil, nil, err
		}
	}
	if v == nil {
		but := ""
		if len(failed) > 0 {
			but = fmt.Sprintf("; `pexpress logs %s --version %.12s` shows what the last one wrote whose deploy failed", name, failed[0].name)
		}
		return nil, nil, fmt.Errorf("%w: location %s serves no version%s", errNotFound, name, but)
	}
	return l, v, nil
}
