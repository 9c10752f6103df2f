package main

import (
	"testing"

	"github.com/stretchr/testify/require"

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
	l.Versions[0].Pid, l.Versions[0].State, l.Versions[0].Error = 7, codeserverpb.State_READY, ""
	text = locationText(l)
	require.Regexp(t, `(?m)^ \* aaaaaaaaaaaa  ready .*  pid 7  12 restarts$`, text)
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
	require.Regexp(t, `(?m)^   aaaaaaaaaaaa  draining \(its process before\)  .* pid 6`, text)
	for _, of := range []string{"aaaaaaaaaaaa (pid 7)", "aaaaaaaaaaaa (pid 6)", "cccccccccccc"} {
		require.Contains(t, text, "\n   "+of+" uses ")
	}
	require.Contains(t, text, "\n   aaaaaaaaaaaa (pid 6) is kept to user: 60706")
	before.State = codeserverpb.State_STARTING
	require.Contains(t, locationText(l), "starting (its next process)")
	before.State, l.Canary = codeserverpb.State_READY, l.GetCurrent()
	require.Regexp(t, `(?m)^ ~ aaaaaaaaaaaa  ready \(canary, 10 %\)  .* pid 6`, locationText(l), "a restart is tried")
	require.Regexp(t, `(?m)^ \* aaaaaaaaaaaa  ready  .* pid 7`, locationText(l))
}
