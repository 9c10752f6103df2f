package limits

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// A group that has used a quarter of a processor for as long as balanceEvery gives way to the others until it has wanted next to
// nothing for a whole calmEvery. One that starves so gives way to nobody for spareFor.
const (
	balanceEvery = 50 * time.Millisecond
	calmEvery    = time.Second
	spareFor     = 10 * time.Second
	startFor     = 250 * time.Millisecond // in which a version that is forked has started, and gives way to nobody
)

// Balance has groups that use much of the processors give way to those that do not, until ctx ends: what answers a request
// now and then does not wait for what computes all the time, which loses nothing where nobody else wants the processor.
// Equal weights are not enough for that: whoever wakes up waits then for a turn of each who computes. On two processors with
// four of them 99 of 100 requests were answered within 36 ms, where it were 3 without them.
func (h *Host) Balance(ctx context.Context) {
	if h.layout == nil {
		return
	}
	b := newBalance(h, time.Now(), machineBusy)
	busy, calm := time.NewTicker(balanceEvery), time.NewTicker(calmEvery)
	defer busy.Stop()
	defer calm.Stop()
	defer b.end()
	for {
		select {
		case <-ctx.Done():
			return
		case <-busy.C:
			b.demote(time.Now())
		case <-calm.C:
			b.restore(time.Now())
		}
		b.keepTicking(b.low())
	}
}

// yield has a group give way: whoever else wakes up runs at once (Linux 5.15), or it has the lowest weight at least.
func yield(dir string, low bool, weight, least, usual string) error {
	idle := filepath.Join(dir, "cpu.idle")
	if _, err := os.Stat(idle); err == nil {
		return write(idle, map[bool]string{true: "1", false: "0"}[low])
	}
	return write(filepath.Join(dir, weight), map[bool]string{true: least, false: usual}[low])
}

// low reports whether a group gives way.
func (b *balance) low() bool {
	for _, s := range b.groups {
		if s.low {
			return true
		}
	}
	return false
}

// end has nobody give way any more: the versions go on, and the next codeserver knows nothing of it.
func (b *balance) end() {
	b.keepTicking(false)
	for group, s := range b.groups {
		if s.low {
			b.raise(group)
		}
	}
}

// keepTicking has there be a ticker, or none.
func (b *balance) keepTicking(on bool) {
	switch {
	case on == b.ticks:
	case on:
		b.ticker = startTicker(b.host.log)
	default:
		b.ticker.stop()
		b.ticker = nil
	}
	b.ticks = on
}

type balance struct {
	host   *Host
	busy   func() time.Duration // how long processors have been busy since the machine was started
	looked moment               // when demote looked last
	calmed moment               // when restore did
	groups map[string]*share
	wants  func(group string) bool
	ticks  bool
	ticker *ticker
}

// moment is a time, and how long processors had been busy then.
type moment struct {
	at    time.Time
	spent time.Duration
}

func newBalance(h *Host, now time.Time, busy func() time.Duration) *balance {
	start := moment{now, busy()}
	return &balance{
		host: h, busy: busy, looked: start, calmed: start, groups: map[string]*share{},
		wants: func(group string) bool { return runnable(h.layout.path(cpuacct, group), h.layout.path(cpu, group)) },
	}
}

// share is what is known of a group.
type share struct {
	since  time.Time     // when it was seen first
	at     time.Time     // when it was looked at last by demote
	used   time.Duration // until then
	low    bool
	before time.Duration // used when it was looked at last by restore, or else when it became low
	fresh  bool          // restore has not looked at it since it became low
	spared time.Time     // it does not give way until then
}

// demote lowers the weights of those groups that have used much since they were looked at last. They are not looked at while the
// machine as a whole does little. Who computes within a limit does so for a part of each tenth of a second (cfs_period_us) only: not
// each time that somebody looks.
func (b *balance) demote(now time.Time) {
	spent := b.busy()
	much := spent-b.looked.spent > now.Sub(b.looked.at)/4
	b.looked = moment{now, spent}
	if !much {
		return
	}
	seen := map[string]*share{}
	for _, group := range b.host.groups(cpu) {
		s := b.groups[group]
		used := b.host.layout.cpu(group)
		if s == nil {
			s = &share{since: now, at: now, used: used} // what it has used since it was made, and since when, is not known
			b.host.unlower(group)
		}
		if !s.low && now.Sub(s.since) >= startFor && !now.Before(s.spared) && used-s.used > now.Sub(s.at)/4 && b.host.lower(group) == nil {
			s.low, s.fresh, s.before = true, true, used
		}
		s.at, s.used, seen[group] = now, used, s
	}
	for group, s := range b.groups {
		if s.low && seen[group] == nil {
			_ = b.host.raise(group) // it is gone
		}
	}
	b.groups = seen
}

// restore gives back their weights to those groups that have become calm, and to those that starve.
func (b *balance) restore(now time.Time) {
	var all time.Duration // used by those with a low weight
	var wanting, there []string
	if b.low() {
		there = b.host.groups(cpu)
	}
	for group, s := range b.groups {
		switch {
		case !s.low:
			continue
		case !slices.Contains(there, group):
			_ = b.host.raise(group)
			delete(b.groups, group)
			continue
		}
		used, fresh := b.host.layout.cpu(group), s.fresh
		little := used-s.before < calmEvery/10
		all += max(0, used-s.before) // nothing is known of one that has just gone
		s.before, s.fresh = used, false
		switch {
		case fresh: // how it does with a low weight shows the next time
		case b.wants(group):
			wanting = append(wanting, group)
		case little:
			b.raise(group)
		}
	}
	if b.starve(now, all) {
		for _, group := range wanting {
			if b.raise(group) {
				b.groups[group].spared = now.Add(spareFor)
			}
		}
	}
}

func (b *balance) raise(group string) bool {
	s := b.groups[group]
	s.low = b.host.raise(group) != nil
	return !s.low
}

// starve reports whether, since it was asked last, the processors were busy nearly all the time, and those groups that give way
// have used less than a quarter of it: for somebody else computes all the time, to whom a version that starts would give way for
// minutes.
func (b *balance) starve(now time.Time, all time.Duration) bool {
	spent := b.busy()
	most := now.Sub(b.calmed.at) * time.Duration(online())
	full := spent-b.calmed.spent > most-most/10
	b.calmed = moment{now, spent}
	return full && all < most/4
}

// machineBusy returns how long the machine's processors have been busy, all together; see proc_uptime(5).
func machineBusy() time.Duration {
	b, _ := os.ReadFile("/proc/uptime")
	var up, idle float64
	_, _ = fmt.Sscan(string(b), &up, &idle)
	return time.Duration((up*float64(online()) - idle) * float64(time.Second))
}

// online returns how many processors the machine uses, be they this process's to use or not; see cpu(4) of sysfs, "0-3,8".
func online() (n int) {
	b, _ := os.ReadFile("/sys/devices/system/cpu/online")
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		low, high, ok := strings.Cut(part, "-")
		if !ok {
			high = low
		}
		first, _ := strconv.Atoi(low)
		last, _ := strconv.Atoi(high)
		n += last - first + 1
	}
	return n
}

// runnable reports whether a thread of a group's processes runs, or would if it were let.
func runnable(dirs ...string) bool {
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		for _, pid := range processes(dir) {
			if slices.ContainsFunc(proc.Threads(pid), func(s proc.Stat) bool { return s.State == 'R' }) {
				return true
			}
		}
		return false
	}
	return false
}
