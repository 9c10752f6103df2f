package page

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/codeserver/access"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

const (
	// readyTime is how long the version may take to become ready.
	readyTime = time.Minute
	// maxStages is how many steps wait for a browser that does not take them: a rollback has fewer.
	maxStages = 64
)

// rollback moves a location to a version that it has kept, and sends the steps as they end. It goes on when the browser is
// gone: a phone that loses its network must not leave a location half way, and whoever looks sees what became of it.
func (p *Page) rollback(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Version string `json:"version"`
		Current string `json:"current"` // what was shown as serving when it was asked for
	}
	if !readJSON(w, r, &req) {
		return
	}
	name := r.PathValue("name")
	l, _, err := p.versionsOf(r, req.Version)
	switch {
	case err != nil:
		failed(w, err)
		return
	case !p.control.may(r.Context(), access.Rollback, name):
		fail(w, http.StatusForbidden, "you have no right to roll this location back: who runs the codeserver can grant it")
		return
	case req.Version == "":
		fail(w, http.StatusBadRequest, "say which version")
		return
	case l.GetCurrent() != req.Current:
		fail(w, http.StatusConflict, "another version serves by now: look at it again")
		return
	}
	p.opts.Log.Info("a rollback is asked for on the page", "location", name, "version", req.Version,
		"by", cache.PrincipalOf(r.Context()), "from", r.RemoteAddr)
	stages, done := make(chan stageView, maxStages), make(chan error, 1)
	go func() {
		done <- p.rollBack(context.WithoutCancel(r.Context()), &codeserverpb.RollbackRequest{
			Location: name, Version: req.Version, IfCurrent: &req.Current, ReadyTimeout: durationpb.New(readyTime),
		}, stages)
	}()
	follow(p.begin(w), stages, done)
}

// rollBack calls Rollback, and sends its steps as long as somebody takes them.
func (p *Page) rollBack(ctx context.Context, req *codeserverpb.RollbackRequest, stages chan<- stageView) error {
	return p.control.stream(ctx, codeserverpb.CodeServer_Rollback_FullMethodName, req, func(m proto.Message) error {
		if st := m.(*codeserverpb.DeployEvent).GetStage(); st != nil {
			select {
			case stages <- stagesOf([]*codeserverpb.Stage{st})[0]:
			default:
			}
		}
		return nil
	})
}

// follow sends the steps and the end of a rollback.
func follow(out *events, stages <-chan stageView, done <-chan error) {
	for {
		select {
		case st := <-stages:
			if out.send("stage", st) != nil {
				return
			}
			continue
		case err := <-done:
			for len(stages) > 0 {
				if out.send("stage", <-stages) != nil {
					return
				}
			}
			says := ""
			if err != nil {
				says = status.Convert(err).Message()
			}
			_ = out.send("end", map[string]string{"error": says})
			return
		}
	}
}
