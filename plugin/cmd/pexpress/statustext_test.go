package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestLocationText: what a plain status says of each version.
func TestLocationText(t *testing.T) {
	l := &codeserverpb.Location{
		Name: "web", Address: "127.0.0.1:8080", Current: "aaaaaaaaaaaaaaaa",
		Versions: []*codeserverpb.Version{
			{Name: "aaaaaaaaaaaaaaaa", State: codeserverpb.State_FAILED, Error: "status 4\nlast words", Usage: &codeserverpb.Usage{Restarts: 12}},
			{Name: "bbbbbbbbbbbbbbbb", State: codeserverpb.State_STOPPED},
		},
	}
	text := locationText(l)
	require.Regexp(t, `(?m)^ \* aaaaaaaaaaaa  failed .*:\d\d  12 restarts  status 4$`, text, "also while it has no process")
	require.Regexp(t, `(?m)^   bbbbbbbbbbbb  stopped .*:\d\d *$`, text)
	ended := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	l.Versions[0].LastEnding = &codeserverpb.Ending{Time: timestamppb.New(ended), Reason: "killed"}
	require.NotContains(t, locationText(l), "killed", "the error says it")
	l.Versions[0].Pid, l.Versions[0].State, l.Versions[0].Error = 7, codeserverpb.State_READY, ""
	text = locationText(l)
	require.Regexp(t, `(?m)^ \* aaaaaaaaaaaa  ready .*  pid 7  12 restarts, the last at `+ended.Local().Format(time.DateTime)+`: killed$`, text)
	require.Contains(t, changeText(l, false), "12 restarts, the last at "+ended.Local().Format(time.DateTime)+": killed")
	l.Versions[0].LastEnding = nil
	require.Contains(t, text, "\n   aaaaaaaaaaaa uses ")

	tried := &codeserverpb.Version{Name: "cccccccccccccccc", State: codeserverpb.State_READY, Pid: 8}
	l.Versions = append([]*codeserverpb.Version{tried}, l.Versions...)
	l.Canary, l.CanaryPercent = tried.Name, 10
	require.Regexp(t, `(?m)^ ~ cccccccccccc  ready \(canary, 10 %\)  deps .*\n \* aaaaaaaaaaaa  ready  `, locationText(l))

	l.Canary = ""
	l.Versions[1].Isolation = []string{"user: 60706"}
	before := &codeserverpb.Version{Name: l.GetCurrent(), State: codeserverpb.State_DRAINING, Pid: 6, Isolation: []string{"user: 60706"}}
	l.Versions = append(l.Versions, before)
	text = locationText(l)
	require.Regexp(t, `(?m)^ \* aaaaaaaaaaaa  ready  .* pid 7`, text)
	require.Regexp(t, `(?m)^   aaaaaaaaaaaa  draining \(its earlier process\)  .* pid 6`, text)
	for _, of := range []string{"aaaaaaaaaaaa (pid 7)", "aaaaaaaaaaaa (pid 6)", "cccccccccccc"} {
		require.Contains(t, text, "\n   "+of+" uses ")
	}
	require.Contains(t, text, "\n   aaaaaaaaaaaa (pid 6) is kept to user: 60706")
	before.State = codeserverpb.State_STARTING
	require.Contains(t, locationText(l), "starting (its later process)")
	before.State, l.Canary = codeserverpb.State_READY, l.GetCurrent()
	require.Regexp(t, `(?m)^ ~ aaaaaaaaaaaa  ready \(canary, 10 %\)  .* pid 6`, locationText(l), "a restart is tried")
	require.Regexp(t, `(?m)^ \* aaaaaaaaaaaa  ready  .* pid 7`, locationText(l))
}

// TestTwinText tells the processes of a version apart, and no other lines.
func TestTwinText(t *testing.T) {
	at := func(seconds int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: seconds} }
	one := &codeserverpb.Version{Name: "a", State: codeserverpb.State_READY, Pid: 1, DeployedAt: at(10)}
	other := &codeserverpb.Version{Name: "a", State: codeserverpb.State_DRAINING, Pid: 2, DeployedAt: at(5)}
	l := &codeserverpb.Location{Name: "web", Current: "a", Versions: []*codeserverpb.Version{one, other}}
	require.Empty(t, twinText(l, one))
	require.Equal(t, " (its earlier process)", twinText(l, other))
	other.DeployedAt = at(15)
	require.Equal(t, " (its later process)", twinText(l, other), "a trial of a restart that failed, and drains")
	other.State, l.Canary = codeserverpb.State_READY, "a"
	require.Empty(t, twinText(l, other), "its mark says what it is")
	*other = codeserverpb.Version{Name: "a", State: codeserverpb.State_STOPPED, DeployedAt: at(5)}
	require.Empty(t, twinText(l, other), "it is kept, and has no process")
}
