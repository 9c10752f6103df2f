package codeserver

import (
	"context"
	"fmt"
	"time"
)

// checkDeps looks at the files of the dependencies of a version that did not come up, and returns those that were not as they were
// made, and are made again: by this call, or for another version since this one was started.
func (s *Server) checkDeps(ctx context.Context, v *version, p *prepared, started time.Time, r report) ([]string, error) {
	begin := time.Now()
	remade, err := s.venvs.Repair(ctx, v.deps, p.wheels, p.interpreter, s.loader.CAS(), started)
	note := "none of them is damaged"
	if len(remade) > 0 {
		note = "made again: " + remade[0]
		if len(remade) > 1 {
			note += fmt.Sprintf(" and %d more", len(remade)-1)
		}
	}
	r.noted("check deps", begin, note)
	s.repaired(ctx, remade, err)
	s.fillBytecode(p.wheels, p.interpreter) // it may have been removed
	return remade, err
}

// repaired has nothing go on with files of dependencies that were not as they were made. ctx is what they were looked at in.
func (s *Server) repaired(ctx context.Context, remade []string, err error) {
	if err != nil && ctx.Err() == nil {
		s.opts.Log.Error("files of dependencies are damaged, or could not be looked at", "error", err)
	}
	if len(remade) > 0 {
		s.opts.Log.Warn("files of dependencies were not as they were made, and are made again", "files", remade)
		s.zygotes.Repaired()
	}
}
