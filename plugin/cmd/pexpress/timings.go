package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// timings divide the time of a deploy, from the start of this process to the first answer of the new version, into steps
// that follow each other: what is in no step of its own is shown as such, so that the steps add up to the whole.
type timings struct {
	began, last time.Time
	steps       []timing
	served      time.Duration // of the codeserver's stages, since the last mark
	beside      bool          // several locations: their stages go side by side
}

// timing is one step.
type timing struct {
	Name         string  `json:"stage"`
	Milliseconds float64 `json:"milliseconds"`
	Within       bool    `json:"within,omitempty"`
	took         time.Duration
	parent       string // the step that holds this one as well, if Within
}

// The steps that hold others.
const (
	buildStep      = "build"
	codeserverStep = "codeserver"
)

// newTimings begins with this process: until now it had one thing to do, so that it began the processor time ago that it has
// used.
func newTimings() *timings {
	now := time.Now()
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) != nil {
		used = unix.Rusage{}
	}
	began := now.Add(-time.Duration(used.Utime.Nano() + used.Stime.Nano()))
	t := &timings{began: began, last: began}
	t.mark("command") // the codeserver has a stage start
	return t
}

// mark ends a step, which began where the last one ended.
func (t *timings) mark(name string) {
	now := time.Now()
	t.add(name, now.Sub(t.last), "")
	t.last = now
}

// add adds a step, or time to one that is there, as of a second location. Time that another step holds as well has that one as
// its parent.
func (t *timings) add(name string, took time.Duration, parent string) {
	for i := range t.steps {
		if s := &t.steps[i]; s.Name == name && s.parent == parent {
			s.took += took
			s.Milliseconds = milliseconds(s.took)
			return
		}
	}
	t.steps = append(t.steps, timing{name, milliseconds(took), parent != "", took, parent})
}

// ordered returns the steps in the order in which they were added, those within another one right after it.
func (t *timings) ordered() []timing {
	var all []timing
	for _, s := range t.steps {
		if s.Within {
			continue
		}
		all = append(all, s)
		for _, part := range t.steps {
			if part.parent == s.Name {
				all = append(all, part)
			}
		}
	}
	return all
}

// stage adds one of the codeserver's stages.
func (t *timings) stage(st *codeserverpb.Stage) {
	t.beside = t.beside || st.GetLocation() != ""
	parent := ""
	if t.beside {
		parent = codeserverStep
	}
	t.add(st.GetName(), st.GetTook().AsDuration(), parent)
	t.served += st.GetTook().AsDuration()
}

// deployed ends the codeserver's part: what is in none of its stages is the way there and back, and what it does between.
func (t *timings) deployed() {
	t.ended("between stages")
}

// failed ends what was under way when the deploy failed.
func (t *timings) failed() {
	t.ended("unfinished")
}

// ended ends the codeserver's part, or what there is of one; rest is what to call the time that none of its stages holds.
func (t *timings) ended(rest string) {
	now := time.Now()
	took := now.Sub(t.last)
	if t.beside {
		rest = codeserverStep
	} else {
		took -= t.served
	}
	t.add(rest, took, "")
	t.last, t.served, t.beside = now, 0, false
}

// firstAnswer asks a location as its readiness probe does, and returns when it has answered.
func firstAnswer(ctx context.Context, req *codeserverpb.DeployRequest, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	probe := req.GetSpec().GetEntry().GetReadiness()
	service, isGRPC := probe.GetGrpcService(), false
	if _, ok := probe.GetProbe().(*codeserverpb.Readiness_GrpcService); ok {
		isGRPC = true
	} else if probe == nil && req.GetSpec().GetEntry().GetPreset() == "dagster" {
		service, isGRPC = "DagsterApi", true
	}
	if isGRPC {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		return err
	}
	path := "/" + strings.TrimPrefix(probe.GetHttpPath(), "/")
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultTransport.RoundTrip(get)
	if err != nil {
		return err
	}
	return resp.Body.Close() // whatever it says, it has answered
}

// reportTimings waits for the first answer of what was deployed and shows how long each step has taken.
func (a *app) reportTimings(ctx context.Context, reqs []*codeserverpb.DeployRequest) error {
	t := a.timings
	for _, req := range reqs {
		address := a.addresses[req.GetLocation()]
		if err := firstAnswer(ctx, req, address); err != nil {
			return fmt.Errorf("location %s serves, and does not answer at %s: %w", req.GetLocation(), address, err)
		}
	}
	t.mark("first answer")
	a.showTimings("the first answer", false)
	return nil
}

// showTimings shows how long each step has taken until now, which is the first answer or a failure.
func (a *app) showTimings(until string, failed bool) {
	t := a.timings
	total, steps := t.last.Sub(t.began), t.ordered()
	text := "\nfrom the start of this command to " + until + ":"
	for _, s := range steps {
		indent := ""
		if s.Within {
			indent = "  "
		}
		text += fmt.Sprintf("\n%-16s %9s", indent+s.Name, took(s.took))
	}
	a.ui.event("timings", map[string]any{"stages": steps, "milliseconds": milliseconds(total), "failed": failed},
		"%s\n%-16s %9s", text, "total", took(total))
}
