package codeserver

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// checkDeps looks at the files of the dependencies of a version that did not come up, and returns those that were not as they were
// made, and are made again: by this call, or for another version since this one was started.
func (s *Server) checkDeps(ctx context.Context, v *version, p *prepared, started time.Time, r report) ([]string, error) {
	begin := time.Now()
	remade, err := s.venvs.Repair(ctx, v.deps, p.wheels, p.interpreter, s.loader.CAS(), started)
	note := "they are as they were made"
	if len(remade) > 0 {
		note = "made again: " + remade[0]
		if len(remade) > 1 {
			note += fmt.Sprintf(" and %d more", len(remade)-1)
		}
	}
	r(&codeserverpb.Stage{Name: "check deps", Took: durationpb.New(time.Since(begin)), Note: note})
	s.repaired(remade, err)
	s.fillBytecode(p.wheels, p.interpreter) // it may have been removed
	return remade, err
}

// repaired has nothing go on with files of dependencies that were not as they were made.
func (s *Server) repaired(remade []string, err error) {
	if len(remade) > 0 || err != nil && s.ctx.Err() == nil {
		s.opts.Log.Warn("files of dependencies were not as they were made", "made_again", remade, "error", err)
	}
	if len(remade) > 0 {
		s.zygotes.Repaired()
	}
}
