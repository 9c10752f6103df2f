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
}

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
	t.add(name, now.Sub(t.last), false)
	t.last = now
}

// add adds a step, or time to one that is there, as of a second location. within is time that another step holds as well.
func (t *timings) add(name string, took time.Duration, within bool) {
	for i := range t.steps {
		if s := &t.steps[i]; s.Name == name && s.Within == within {
			s.took += took
			s.Milliseconds = milliseconds(s.took)
			return
		}
	}
	t.steps = append(t.steps, timing{name, milliseconds(took), within, took})
}

// stage adds one of the codeserver's stages.
func (t *timings) stage(st *codeserverpb.Stage) {
	t.beside = t.beside || st.GetLocation() != ""
	t.add(st.GetName(), st.GetTook().AsDuration(), t.beside)
	t.served += st.GetTook().AsDuration()
}

// deployed ends the codeserver's part: what is in none of its stages is the way there and back, and what it does between.
func (t *timings) deployed() {
	now := time.Now()
	rest, name := now.Sub(t.last), "codeserver"
	if !t.beside {
		rest, name = rest-t.served, "between stages"
	}
	t.add(name, rest, false)
	t.last, t.served = now, 0
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
	total := t.last.Sub(t.began)
	text := "\nfrom the start of this command to the first answer:"
	for _, s := range t.steps {
		indent := ""
		if s.Within {
			indent = "  "
		}
		text += fmt.Sprintf("\n%-16s %9s", indent+s.Name, took(s.took))
	}
	a.ui.event("timings", map[string]any{"stages": t.steps, "milliseconds": milliseconds(total)}, "%s\n%-16s %9s", text, "total", took(total))
	return nil
}
