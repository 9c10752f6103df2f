package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// board is what is known of a codeserver's locations, with what follows from one message to the next.
type board struct {
	locations map[string]*codeserverpb.Location
	rates     map[string]*rate // by rateKey
}

// rate is what a version does in a second.
type rate struct {
	cpu, requests      float64
	cpuKnown, reqKnown bool
	measured, asked    time.Time // when what follows was so
	cpuThen            time.Duration
	requestsThen       int64
}

func newBoard() *board {
	return &board{locations: map[string]*codeserverpb.Location{}, rates: map[string]*rate{}}
}

// rateKey is of a process: there may be two of a version, one of which drains.
func rateKey(l *codeserverpb.Location, v *codeserverpb.Version) string {
	return fmt.Sprintf("%s/%s/%d", l.GetName(), v.GetName(), v.GetPid())
}

// leastSpan is the time over which a rate says something.
const leastSpan = 400 * time.Millisecond

// take takes a message that came now.
func (b *board) take(l *codeserverpb.Location, now time.Time) {
	kept := map[string]bool{}
	for _, v := range l.GetVersions() {
		if v.GetPid() == 0 {
			continue
		}
		key := rateKey(l, v)
		kept[key] = true
		if b.rates[key] == nil {
			b.rates[key] = &rate{}
		}
		b.rates[key].take(v.GetUsage(), now)
	}
	maps.DeleteFunc(b.rates, func(key string, _ *rate) bool {
		return strings.HasPrefix(key, l.GetName()+"/") && !kept[key]
	})
	b.locations[l.GetName()] = l
	if isGone(l) {
		delete(b.locations, l.GetName())
	}
}

func (r *rate) take(u *codeserverpb.Usage, now time.Time) {
	at, cpu := u.GetMeasuredAt().AsTime(), u.GetCpu().AsDuration()
	switch span := at.Sub(r.measured); {
	case r.measured.IsZero() || cpu < r.cpuThen:
		r.cpuKnown, r.cpuThen, r.measured = false, cpu, at
	case span >= leastSpan:
		r.cpu, r.cpuKnown = (cpu-r.cpuThen).Seconds()/span.Seconds(), true
		r.cpuThen, r.measured = cpu, at
	}
	switch span := now.Sub(r.asked); {
	case r.asked.IsZero() || u.GetRequests() < r.requestsThen:
		r.reqKnown, r.requestsThen, r.asked = false, u.GetRequests(), now
	case span >= leastSpan:
		r.requests, r.reqKnown = float64(u.GetRequests()-r.requestsThen)/span.Seconds(), true
		r.requestsThen, r.asked = u.GetRequests(), now
	}
}

type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

type cell struct {
	text  string
	style style
}

// line is cells that are written one after the other.
type line []cell

func (l line) write(b *strings.Builder, width int, colour bool) {
	for _, c := range l {
		text := []rune(strings.ReplaceAll(printable(c.text), "\n", " "))
		text = text[:min(len(text), width)]
		width -= len(text)
		if colour && c.style != plain && len(text) > 0 {
			fmt.Fprintf(b, "\x1b[%sm%s\x1b[0m", string(c.style), string(text))
		} else {
			b.WriteString(string(text))
		}
	}
}

var columns = []string{"", "VERSION", "STATE", "AGE", "CPU", "MEMORY", "PEAK", "PROCS", "REQ/S", "P50", "P99", "REQUESTS", "FAILED", "OPEN", "RESTARTS"}

// lines returns the table.
func (b *board) lines(now time.Time) []line {
	type entry struct {
		cells line // of the table
		free  line // below it, or a location's
	}
	var all []entry
	for _, name := range slices.Sorted(maps.Keys(b.locations)) {
		l := b.locations[name]
		all = append(all, entry{}, entry{free: locationLine(l)})
		if text := failureText(l); text != "" {
			all = append(all, entry{free: line{{"  " + text, red}}})
		}
		first := true
		for _, v := range l.GetVersions() {
			if !isShown(l, v) {
				continue
			}
			if first {
				first = false
				var head line
				for _, c := range columns {
					head = append(head, cell{c, dim})
				}
				all = append(all, entry{cells: head})
			}
			all = append(all, entry{cells: b.row(l, v, now)})
			for _, d := range details(v) {
				all = append(all, entry{free: d})
			}
		}
	}
	widths := make([]int, len(columns))
	for _, e := range all {
		for i, c := range e.cells {
			widths[i] = max(widths[i], len([]rune(c.text)))
		}
	}
	lines := make([]line, len(all))
	for i, e := range all {
		lines[i] = e.free
		for j, c := range e.cells {
			if j > 2 { // numbers to the right
				c.text = fmt.Sprintf("%*s", widths[j], c.text)
			}
			lines[i] = append(lines[i], cell{fmt.Sprintf("%-*s  ", widths[j], c.text), c.style})
		}
	}
	return lines
}

// isShown leaves out what is only kept on disk.
func isShown(l *codeserverpb.Location, v *codeserverpb.Version) bool {
	return serves(l, v) || v.GetState() != codeserverpb.State_STOPPED
}

func locationLine(l *codeserverpb.Location) line {
	out := line{{l.GetName(), bold}, {"  " + first(l.GetAddress(), "no address yet"), plain}}
	if text := listenText(l); text != "" {
		out = append(out, cell{text, red})
	}
	if l.GetCanary() != "" {
		out = append(out, cell{fmt.Sprintf("  canary %s %d %%", short(l.GetCanary()), l.GetCanaryPercent()), yellow})
	}
	if l.GetChannel() != "" {
		out = append(out, cell{"  channel " + l.GetChannel(), plain})
	}
	if l.GetChannelError() != "" {
		out = append(out, cell{": " + firstLine(l.GetChannelError()), red})
	}
	stopped := 0
	for _, v := range l.GetVersions() {
		if !isShown(l, v) {
			stopped++
		}
	}
	if stopped > 0 {
		out = append(out, cell{"  " + count(stopped, "other version") + " kept", dim})
	}
	return out
}

var stateStyles = map[codeserverpb.State]style{
	codeserverpb.State_READY: green, codeserverpb.State_STARTING: yellow, codeserverpb.State_DRAINING: yellow, codeserverpb.State_FAILED: red,
}

func (b *board) row(l *codeserverpb.Location, v *codeserverpb.Version, now time.Time) line {
	u, r := v.GetUsage(), b.rates[rateKey(l, v)]
	if r == nil {
		r = &rate{}
	}
	known := func(ok bool, format string, n any) string {
		if !ok {
			return "-"
		}
		return fmt.Sprintf(format, n)
	}
	runs, answered := v.GetPid() != 0, u.GetLatencyP50() != nil
	alarm := func(n int64) cell {
		if n > 0 {
			return cell{fmt.Sprint(n), red}
		}
		return cell{"0", plain}
	}
	return line{
		{mark(l, v), bold},
		{short(v.GetName()), plain},
		{stateName(v.GetState()) + twinText(l, v), stateStyles[v.GetState()]},
		{age(now.Sub(v.GetDeployedAt().AsTime())), plain},
		{known(runs && r.cpuKnown, "%.0f %%", 100*r.cpu), plain},
		{known(runs, "%s", size(u.GetMemoryBytes())), plain},
		{known(u.GetMemoryPeakBytes() > 0, "%s", size(u.GetMemoryPeakBytes())), plain},
		{known(runs, "%d", u.GetProcesses()), plain},
		{known(runs && r.reqKnown, "%.1f", r.requests), plain},
		{known(answered, "%s", took(u.GetLatencyP50().AsDuration())), plain},
		{known(answered, "%s", took(u.GetLatencyP99().AsDuration())), plain},
		{fmt.Sprint(u.GetRequests()), plain},
		alarm(u.GetFailedRequests()),
		{fmt.Sprint(u.GetActiveRequests()), plain},
		alarm(u.GetRestarts()),
	}
}

// details are what a version's row has no place for.
func details(v *codeserverpb.Version) []line {
	var all []line
	add := func(text string, s style) { all = append(all, line{{"     " + text, s}}) }
	if v.GetError() != "" {
		add(firstLine(v.GetError()), red)
	}
	if text := endingText(v); text != "" {
		add(count(v.GetUsage().GetRestarts(), "restart")+text, yellow)
	}
	if len(v.GetStages()) > 0 {
		var steps []string
		for _, st := range v.GetStages() {
			steps = append(steps, st.GetName()+" "+took(st.GetTook().AsDuration()))
		}
		add("last start: "+strings.Join(steps, ", "), dim)
	}
	if len(v.GetIsolation()) > 0 {
		add("isolation: "+strings.Join(v.GetIsolation(), ", "), dim)
	}
	if text := preloadText(v); text != "" {
		add(text, dim)
	}
	return all
}

// age is a time in its largest unit.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
