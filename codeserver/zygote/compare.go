package zygote

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// compared are the lines of /proc/PID/status, see proc_pid_status(5), that say the same of a version whether or not it was
// forked. Users and the number of open files are a location's own.
var compared = []string{
	"Umask", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
}

// facts returns what the kernel says of a process that its program, or what started it, decides.
func facts(pid int) (map[string]string, error) {
	found := map[string]string{}
	dir := fmt.Sprintf("/proc/%d/", pid)
	status, err := proc.Status(pid)
	if err != nil {
		return nil, err
	}
	for _, name := range compared {
		if value, ok := status[name]; ok {
			found[name] = value
		}
	}
	found["SigCgt"] = programs(found["SigCgt"])
	limits, err := os.ReadFile(dir + "limits")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(limits)) {
		if name, value, ok := strings.Cut(line, "  "); ok && strings.HasPrefix(name, "Max ") && name != "Max open files" {
			found[name] = strings.Join(strings.Fields(value), " ")
		}
	}
	score, err := os.ReadFile(dir + "oom_score_adj")
	if err != nil {
		return nil, err
	}
	found["oom_score_adj"] = strings.TrimSpace(string(score))
	stat, err := proc.ReadStat(pid)
	if err != nil {
		return nil, err
	}
	found["nice"], found["policy"] = strconv.Itoa(stat.Nice), strconv.Itoa(stat.Policy)
	return found, nil
}

// programs returns those of a mask of signals that are a program's to use. The C library has two for itself, 32 and 33, whose
// handlers come when the program starts a thread: that of a server, at some time after it is ready.
func programs(mask string) string {
	n, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return mask
	}
	return fmt.Sprintf("%016x", n&^(3<<31))
}

// compare notes what is known of the first version that became ready by itself, and says what is otherwise with the first
// one that was forked: once for a Key. Who changes with time, such as a program that takes up a signal later than when it is
// ready, differs as well: that is for people to judge.
func (l *Launch) compare(w *warm, pid int) {
	if l.cold {
		return // something is wrong with the version
	}
	p := l.pool
	p.mu.Lock()
	known, done := w.Facts, w.Compared
	p.mu.Unlock()
	if done || l.Warm() == (known == nil) {
		return
	}
	now, err := facts(pid)
	if err != nil {
		return // it has ended
	}
	p.mu.Lock()
	if l.Warm() {
		w.Compared, w.Facts = true, nil
	} else {
		w.Facts = now
	}
	p.mu.Unlock()
	p.save(l.version.Key, w)
	if !l.Warm() {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if known[name] != now[name] {
			p.log.Warn("a forked version differs from one that started by itself", "key", l.version.Key, "what", name, "forked", now[name], "by_itself", known[name])
		}
	}
}
