package worker

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc: USER_HZ is 100 on every architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// CPU returns the processor time that a process and those below it have used.
func CPU(pid int) time.Duration {
	total := cpuOf(pid)
	for _, p := range Descendants(pid) {
		total += cpuOf(p.PID)
	}
	return total
}

// cpuOf reads utime and stime, fields 14 and 15 of /proc/PID/stat.
func cpuOf(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick
}
