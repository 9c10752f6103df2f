package worker

import (
	"time"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// CPU returns the processor time that a process and those below it have used.
func CPU(pid int) time.Duration {
	s, _ := proc.ReadStat(pid)
	total := s.CPU
	for _, p := range Descendants(pid) {
		s, _ := proc.ReadStat(p.PID)
		total += s.CPU
	}
	return total
}
