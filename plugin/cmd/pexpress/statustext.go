package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func stateName(s codeserverpb.State) string { return strings.ToLower(s.String()) }

// usesText says what a version uses and has done.
func usesText(u *codeserverpb.Usage) string {
	text := fmt.Sprintf("%s of a processor so far, %s of memory (most %s) in %s; %s, %d failed, %d under way",
		took(u.GetCpu().AsDuration()), size(u.GetMemoryBytes()), size(u.GetMemoryPeakBytes()),
		count(u.GetProcesses(), "process"), count(u.GetRequests(), "request"),
		u.GetFailedRequests(), u.GetActiveRequests())
	if u.GetLatencyP50() != nil {
		text += fmt.Sprintf(", half within %s, 99 %% within %s", took(u.GetLatencyP50().AsDuration()), took(u.GetLatencyP99().AsDuration()))
	}
	return text + "; " + count(u.GetRestarts(), "restart")
}

// failureText says why the last deploy of a location failed, "" if it did not.
func failureText(l *codeserverpb.Location) string {
	f := l.GetFailure()
	if f == nil {
		return ""
	}
	return fmt.Sprintf("the last deploy, of %s at %s, failed: %s", short(f.GetVersion()),
		f.GetTime().AsTime().Local().Format(time.DateTime), firstLine(f.GetError()))
}

// preloadText says what is not imported before versions with its dependencies are forked, or why they are not, "" if there
// is nothing to say.
func preloadText(v *codeserverpb.Version) string {
	if v.GetUnforkable() != "" {
		return "not forked: " + v.GetUnforkable()
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(v.GetLeftOut())) {
		all = append(all, name+" ("+v.GetLeftOut()[name]+")")
	}
	if len(all) == 0 {
		return ""
	}
	return "not imported before the fork: " + strings.Join(all, ", ")
}

// listenText says why nobody reaches a location at its address, "" if it listens there.
func listenText(l *codeserverpb.Location) string {
	if l.GetListenError() == "" {
		return ""
	}
	return ", where it does not listen: " + firstLine(l.GetListenError())
}

// channelText says how a location stands to its channel.
func channelText(l *codeserverpb.Location) string {
	switch {
	case l.GetChannel() == "":
		return ""
	case l.GetChannelError() == "":
		return ", follows channel " + l.GetChannel()
	}
	return ", cannot follow channel " + l.GetChannel() + ": " + firstLine(l.GetChannelError())
}

// serves reports whether it is that version which the location serves. It may have two of a name, where one that is served
// again drains still: the newer one comes first.
func serves(l *codeserverpb.Location, v *codeserverpb.Version) bool {
	for _, x := range l.GetVersions() {
		if x.GetName() == l.GetCurrent() {
			return x == v
		}
	}
	return false
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
