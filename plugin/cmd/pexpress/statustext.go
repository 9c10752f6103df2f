package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func stateName(s codeserverpb.State) string { return strings.ToLower(s.String()) }

// stateText says what a version is there for, where its state alone does not.
func stateText(l *codeserverpb.Location, v *codeserverpb.Version) string {
	if isTried(l, v) {
		return fmt.Sprintf("%s (canary, %d %%)", stateName(v.GetState()), l.GetCanaryPercent())
	}
	return stateName(v.GetState()) + twinText(l, v)
}

// twinText tells a process of a version from that of the first one of its name, "" if it is that: one that is started again is
// there twice. What is tried is told apart by that.
func twinText(l *codeserverpb.Location, v *codeserverpb.Version) string {
	one := firstOf(l, v.GetName())
	switch {
	case one == v || isTried(l, v) || v.GetPid() == 0:
		return ""
	case v.GetState() == codeserverpb.State_STARTING || v.GetDeployedAt().AsTime().After(one.GetDeployedAt().AsTime()):
		return " (its later process)"
	}
	return " (its earlier process)"
}

// versionText is a version's name, with its process where there are several of the name.
func versionText(l *codeserverpb.Location, v *codeserverpb.Version) string {
	for _, x := range l.GetVersions() {
		if x != v && x.GetName() == v.GetName() {
			return fmt.Sprintf("%s (pid %d)", short(v.GetName()), v.GetPid())
		}
	}
	return short(v.GetName())
}

// mark stands before the version that serves, and before the one that is tried beside it.
func mark(l *codeserverpb.Location, v *codeserverpb.Version) string {
	switch {
	case serves(l, v):
		return "*"
	case isTried(l, v):
		return "~"
	}
	return " "
}

// locationText says how a location is, in a line for each of its versions and further ones about those that run.
func locationText(l *codeserverpb.Location) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s%s%s\n", l.GetName(), first(l.GetAddress(), "no address yet"), channelText(l), listenText(l))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, v := range l.GetVersions() {
		deps, source := v.GetSpec().GetDepsRoot().GetHash(), v.GetSpec().GetSourceRoot().GetHash()
		fmt.Fprintf(w, " %s %s\t%s\tdeps %s\tsource %s\t%s", mark(l, v), short(v.GetName()), stateText(l, v),
			short(deps), short(source), v.GetDeployedAt().AsTime().Local().Format(time.DateTime))
		if v.GetPid() != 0 {
			fmt.Fprintf(w, "\tpid %d", v.GetPid())
		}
		if n := v.GetUsage().GetRestarts(); n > 0 {
			fmt.Fprintf(w, "\t%s%s", count(n, "restart"), endingText(v))
		}
		if v.GetError() != "" {
			fmt.Fprintf(w, "\t%s", firstLine(v.GetError()))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	for _, v := range l.GetVersions() {
		if v.GetPid() != 0 {
			fmt.Fprintf(&b, "   %s uses %s\n", versionText(l, v), usesText(v.GetUsage()))
		}
		if len(v.GetIsolation()) > 0 {
			fmt.Fprintf(&b, "   %s is kept to %s\n", versionText(l, v), strings.Join(v.GetIsolation(), ", "))
		}
		if text := preloadText(v); text != "" {
			fmt.Fprintf(&b, "   %s: %s\n", versionText(l, v), text)
		}
	}
	if text := failureText(l); text != "" {
		fmt.Fprintf(&b, "   %s\n", text)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// endingText says why a version was started again the last time, "" if it never was, or its error says why.
func endingText(v *codeserverpb.Version) string {
	e := v.GetLastEnding()
	if e == nil || v.GetError() != "" {
		return ""
	}
	return fmt.Sprintf(", the last at %s: %s", e.GetTime().AsTime().Local().Format(time.DateTime), e.GetReason())
}

// usesText says what a version uses and has done.
func usesText(u *codeserverpb.Usage) string {
	text := fmt.Sprintf("%s of a processor so far, %s of memory (most %s) in %s; %s, %d failed, %d under way",
		took(u.GetCpu().AsDuration()), size(u.GetMemoryBytes()), size(u.GetMemoryPeakBytes()),
		count(u.GetProcesses(), "process"), count(u.GetRequests(), "request"),
		u.GetFailedRequests(), u.GetActiveRequests())
	if u.GetLatencyP50() != nil {
		text += fmt.Sprintf(", half within %s, 99 %% within %s", took(u.GetLatencyP50().AsDuration()), took(u.GetLatencyP99().AsDuration()))
	}
	return text
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

// serves reports whether it is that version which the location serves.
func serves(l *codeserverpb.Location, v *codeserverpb.Version) bool {
	return firstOf(l, l.GetCurrent()) == v
}

// isTried reports whether it is that version which gets a share of the location's requests, beside the one that serves.
func isTried(l *codeserverpb.Location, v *codeserverpb.Version) bool {
	for _, x := range l.GetVersions() {
		if x.GetName() == l.GetCanary() && !serves(l, x) {
			return x == v
		}
	}
	return false
}

// firstOf returns the first version of a name, nil if there is none. The one that serves comes before others of its name, and
// newer ones before older ones.
func firstOf(l *codeserverpb.Location, name string) *codeserverpb.Version {
	for _, v := range l.GetVersions() {
		if v.GetName() == name {
			return v
		}
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
