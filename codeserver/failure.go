package codeserver

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// keepFailure has locations remember why their last deploy, rollback or restart failed, until one does not. One that was not begun,
// since another was under way, is no news of them.
func (s *Server) keepFailure(all []*transition, why error) {
	if errors.Is(why, errAborted) || s.ctx.Err() != nil {
		return
	}
	text := ""
	if errors.Is(why, context.Canceled) {
		text = "it was called off"
	} else if why != nil {
		text = classify(why).Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range all {
		t.l.done.deploy(t, why)
		t.l.failure = nil
		if why != nil {
			t.l.failure = &codeserverpb.Failure{Version: t.v.name, Time: timestamppb.Now(), Error: text, Stages: t.v.stages}
		}
	}
}
