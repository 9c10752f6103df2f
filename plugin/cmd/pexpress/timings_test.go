package main

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// shown returns the names of steps as they are shown.
func shown(t *timings) (names []string) {
	for _, s := range t.ordered() {
		if s.Within {
			s.Name = "  " + s.Name
		}
		names = append(names, s.Name)
	}
	return names
}

// TestTimingsOrder: what is within a step comes after it, also where it was known before.
func TestTimingsOrder(t *testing.T) {
	of := newTimings()
	for _, output := range []string{"source.pex", "docs"} { // of a second location, something that the first has not
		of.mark("plan")
		of.mark(buildStep)
		of.add(output, time.Millisecond, buildStep)
		of.mark("describe")
	}
	of.stage(&codeserverpb.Stage{Name: "load deps", Location: "a", Took: durationpb.New(time.Second)})
	of.stage(&codeserverpb.Stage{Name: "start", Location: "b", Took: durationpb.New(time.Second)})
	of.deployed()
	of.mark("first answer")
	require.Equal(t, []string{"command", "plan", "build", "  source.pex", "  docs", "describe", "codeserver", "  load deps", "  start", "first answer"}, shown(of))
}

// TestTimingsFailed: a deploy that fails has the steps that were done, and the rest, which add up.
func TestTimingsFailed(t *testing.T) {
	var out bytes.Buffer
	a := &app{ui: newUI(false, &out, io.Discard), timings: newTimings()}
	a.timings.mark("plan")
	a.timings.stage(&codeserverpb.Stage{Name: "start", Took: durationpb.New(0)})
	a.timings.failed()
	require.Equal(t, []string{"command", "plan", "start", "unfinished"}, shown(a.timings))
	a.showTimings("its failure", true)
	require.Regexp(t, `to its failure:\ncommand [^\n]*\nplan [^\n]*\nstart [^\n]*\nunfinished [^\n]*\ntotal `, out.String())
}
