// Package proc reads what the kernel says of processes, and of who listens; see proc(5) and sock_diag(7).
package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stat is what /proc/PID/stat says of a process, or /proc/PID/task/TID/stat of a thread.
type Stat struct {
	PID, Parent  int
	State        byte          // R where it runs or would, Z where it has ended, …
	CPU          time.Duration // processor time of its own
	Children     time.Duration // that of its children which it has waited for
	Nice, Policy int
}

// tick is the unit of times there: USER_HZ is 100 on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// ReadStat reads that of a process.
func ReadStat(pid int) (Stat, error) { return read(filepath.Join("/proc", strconv.Itoa(pid), "stat")) }

// Threads reads those of a process's threads. One that ends meanwhile is left out.
func Threads(pid int) []Stat { return readAll(fmt.Sprintf("/proc/%d/task/*/stat", pid)) }

// All reads those of all processes. One that ends meanwhile is left out.
func All() []Stat { return readAll("/proc/[0-9]*/stat") }

// PIDs lists all processes.
func PIDs() (all []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

func readAll(pattern string) (found []Stat) {
	files, _ := filepath.Glob(pattern)
	for _, file := range files {
		if s, err := read(file); err == nil {
			found = append(found, s)
		}
	}
	return found
}

// read parses proc_pid_stat(5). The name of the program, in parentheses, may hold anything.
func read(file string) (s Stat, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Stat{}, err
	}
	first, _, _ := bytes.Cut(b, []byte{' '})
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from the third field on
	if len(f) < 39 {
		return Stat{}, fmt.Errorf("%s has %d fields", file, len(f))
	}
	number := func(field []byte) int {
		n, e := strconv.Atoi(string(field))
		if err == nil && e != nil {
			err = fmt.Errorf("%s: %w", file, e)
		}
		return n
	}
	s = Stat{PID: number(first), State: f[0][0], Parent: number(f[1]), Nice: number(f[16]), Policy: number(f[38])}
	s.CPU = time.Duration(number(f[11])+number(f[12])) * tick
	s.Children = time.Duration(number(f[13])+number(f[14])) * tick
	return s, err
}

// Status reads /proc/PID/status: what follows the name on each line.
func Status(pid int) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		found[name] = strings.TrimSpace(value)
	}
	return found, nil
}
