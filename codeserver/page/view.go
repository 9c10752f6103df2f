package page

import (
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// stateView is all that the page shows but what it asks for on its own.
type stateView struct {
	Now       time.Time      `json:"now"`
	Locations []locationView `json:"locations"`
}

type locationView struct {
	Name          string        `json:"name"`
	Address       string        `json:"address"`
	Current       string        `json:"current"`
	Previous      string        `json:"previous"`
	Canary        string        `json:"canary"`
	CanaryPercent int32         `json:"canary_percent"`
	Channel       string        `json:"channel"`
	ChannelError  string        `json:"channel_error"`
	ListenError   string        `json:"listen_error"`
	Failure       *failureView  `json:"failure,omitempty"`
	Versions      []versionView `json:"versions"`
	// Last is the newest point of its history, nil before the first.
	Last *point `json:"last,omitempty"`
	// MayRollback says whether who looks has that right.
	MayRollback bool `json:"may_rollback"`
}

type failureView struct {
	Version string      `json:"version"`
	Time    time.Time   `json:"time"`
	Error   string      `json:"error"`
	Stages  []stageView `json:"stages"`
}

type versionView struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Deployed time.Time `json:"deployed"`
	PID      int64     `json:"pid"`
	Error    string    `json:"error"`
	// LastEnding is why it was started again the last time, nil if it never was.
	LastEnding *endingView       `json:"last_ending,omitempty"`
	Forked     bool              `json:"forked"`
	Isolation  []string          `json:"isolation"`
	Stages     []stageView       `json:"stages"`
	Usage      usageView         `json:"usage"`
	Limits     limitsView        `json:"limits"`
	Python     string            `json:"python"`
	Runs       string            `json:"runs"`
	Deps       string            `json:"deps"`
	Source     string            `json:"source"`
	Outputs    map[string]string `json:"outputs"`
	// Variables are names: a value may be what only the location is to know.
	Variables []string `json:"variables"`
	Secrets   []string `json:"secrets"`
	Cold      bool     `json:"cold"`
	// LeftOut are packages that are not imported before the fork, with why; Unforkable is why there is no fork.
	LeftOut    map[string]string `json:"left_out"`
	Unforkable string            `json:"unforkable"`
}

type endingView struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

type usageView struct {
	CPU      float64 `json:"cpu"` // seconds
	Memory   int64   `json:"memory"`
	Peak     int64   `json:"peak"`
	Requests int64   `json:"requests"`
	Failed   int64   `json:"failed"`
	Active   int64   `json:"active"`
	Restarts int64   `json:"restarts"`
	// Milliseconds; nil when nothing was answered yet.
	P50 *float64 `json:"p50"`
	P99 *float64 `json:"p99"`
}

type limitsView struct {
	Memory    int64 `json:"memory"`
	CPU       int64 `json:"cpu"` // thousandths
	Pids      int64 `json:"pids"`
	OpenFiles int64 `json:"open_files"`
}

type stageView struct {
	Name  string  `json:"name"`
	Took  float64 `json:"took"` // milliseconds
	Bytes int64   `json:"bytes"`
	Blobs int64   `json:"blobs"`
}

func viewOf(l *codeserverpb.Location) locationView {
	v := locationView{
		Name: l.GetName(), Address: l.GetAddress(), Current: l.GetCurrent(), Previous: l.GetPrevious(), Canary: l.GetCanary(),
		CanaryPercent: l.GetCanaryPercent(), Channel: l.GetChannel(), ChannelError: l.GetChannelError(), ListenError: l.GetListenError(), Versions: []versionView{},
	}
	if f := l.GetFailure(); f != nil {
		v.Failure = &failureView{f.GetVersion(), f.GetTime().AsTime(), f.GetError(), stagesOf(f.GetStages())}
	}
	for _, w := range l.GetVersions() {
		v.Versions = append(v.Versions, versionOf(w))
	}
	return v
}

func versionOf(v *codeserverpb.Version) versionView {
	s, u, l := v.GetSpec(), v.GetUsage(), v.GetSpec().GetLimits()
	view := versionView{
		Name: v.GetName(), State: strings.ToLower(v.GetState().String()), Deployed: v.GetDeployedAt().AsTime(), PID: v.GetPid(),
		Error: v.GetError(), Forked: v.GetForked(), Isolation: orEmpty(v.GetIsolation()), Stages: stagesOf(v.GetStages()),
		Python: s.GetPython(), Runs: strings.Join(append([]string{s.GetEntry().GetPreset()}, s.GetEntry().GetArgs()...), " "),
		Deps: s.GetDepsRoot().GetHash(), Source: s.GetSourceRoot().GetHash(), Outputs: map[string]string{},
		Variables: orEmpty(slices.Sorted(maps.Keys(s.GetEnv()))), Secrets: orEmpty(s.GetSecrets()), Cold: s.GetCold(),
		LeftOut: orNone(v.GetLeftOut()), Unforkable: v.GetUnforkable(),
		Limits: limitsView{l.GetMemoryBytes(), l.GetCpuMillis(), l.GetPids(), l.GetOpenFiles()},
		Usage: usageView{
			CPU: u.GetCpu().AsDuration().Seconds(), Memory: u.GetMemoryBytes(), Peak: u.GetMemoryPeakBytes(),
			Requests: u.GetRequests(), Failed: u.GetFailedRequests(), Active: u.GetActiveRequests(), Restarts: u.GetRestarts(),
			P50: optional(u.GetLatencyP50()), P99: optional(u.GetLatencyP99()),
		},
	}
	if e := v.GetLastEnding(); e != nil {
		view.LastEnding = &endingView{e.GetTime().AsTime(), e.GetReason()}
	}
	for name, d := range s.GetOutputs() {
		view.Outputs[name] = d.GetHash()
	}
	return view
}

func stagesOf(all []*codeserverpb.Stage) []stageView {
	views := []stageView{}
	for _, s := range all {
		views = append(views, stageView{s.GetName(), milliseconds(s.GetTook()), s.GetFetchedBytes(), s.GetFetchedBlobs()})
	}
	return views
}

func milliseconds(d *durationpb.Duration) float64 {
	return float64(d.AsDuration().Microseconds()) / 1000
}

func optional(d *durationpb.Duration) *float64 {
	if d == nil {
		return nil
	}
	ms := milliseconds(d)
	return &ms
}

// orNone has an empty object in JSON, where a nil map would be null.
func orNone(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// orEmpty has an empty list in JSON, where a nil one would be null.
func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
