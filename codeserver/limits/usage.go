package limits

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Usage is what a version's processes use.
type Usage struct {
	CPU       time.Duration // of those that have ended, too, where there is a cgroup
	Memory    int64         // now, in bytes: each page that n processes share is counted as 1/n of one (PSS)
	Peak      int64         // the most there was at once, as far as it is known
	Processes int64
}

// seen is the most that was read of a group's usage: what remains of it when it is gone.
type seen struct {
	mu   sync.Mutex
	cpu  time.Duration
	peak int64
}

func (s *seen) note(cpu time.Duration, peak int64) Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cpu, s.peak = max(s.cpu, cpu), max(s.peak, peak)
	return Usage{CPU: s.cpu, Peak: s.peak}
}

// Last returns what is known of a group without looking: all that it has used, once End has returned. Where there is no
// cgroup it is what was read last.
func (g *Group) Last() Usage { return g.seen.note(0, 0) }

// Usage reads what is used now. found are the processes of the version where there is no cgroup to say.
func (g *Group) Usage(found func() []int) Usage {
	var u Usage
	pids := []int{}
	if g.name == "" {
		pids = found()
		for _, pid := range pids {
			u.CPU += cpuTime(pid)
		}
	} else {
		n := g.host.layout.usage(g.name)
		u.CPU, u.Peak = time.Duration(n.cpu), n.peak
		pids = append(pids, processes(g.Dirs()[0])...)
	}
	for _, pid := range pids {
		u.Memory += PSS(pid)
	}
	most := g.seen.note(u.CPU, max(u.Peak, u.Memory))
	u.CPU, u.Peak, u.Processes = most.CPU, most.Peak, int64(len(pids))
	return u
}

// PSS reads the memory of a process, 0 if it has ended; see proc_pid_smaps(5).
func PSS(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range bytes.Lines(b) {
		var kib int64
		if value, ok := bytes.CutPrefix(line, []byte("Pss:")); ok {
			_, _ = fmt.Sscan(string(value), &kib)
			return kib << 10
		}
	}
	return 0
}

// clockTicks is how many of the units of /proc/PID/stat are a second: the same on every Linux that Go runs on.
const clockTicks = 100

// cpuTime reads the processor time of a process and of its children that have ended; see proc_pid_stat(5).
func cpuTime(pid int) time.Duration {
	b, _ := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 15 {
		return 0
	}
	var ticks, sum int64
	for _, field := range f[11:15] { // utime, stime, cutime, cstime
		if _, err := fmt.Sscan(field, &ticks); err == nil {
			sum += ticks
		}
	}
	return time.Duration(sum) * time.Second / clockTicks
}
