package limits

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/pexpress/pexpress/codeserver/proc"
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

// Memory returns how much of its limit the group has used, without what the kernel can take back, such as cached files; 0
// where there is no cgroup to say.
func (g *Group) Memory() int64 {
	if g.name == "" {
		return 0
	}
	return g.host.layout.memory(g.name)
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

// cpuTime reads the processor time of a process and of its children that have ended.
func cpuTime(pid int) time.Duration {
	s, _ := proc.ReadStat(pid)
	return s.CPU + s.Children
}
