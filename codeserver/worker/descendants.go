package worker

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Proc is a process of this machine.
type Proc struct {
	PID     int
	Command string // its arguments, separated by spaces
}

// Descendants lists the processes below pid, zombies left out.
func Descendants(pid int) []Proc {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if p, parent, ok := readStat(dir); ok {
			children[parent] = append(children[parent], p)
		}
	}
	var found []Proc
	queue := children[pid]
	for len(queue) > 0 {
		p := queue[0]
		queue = append(queue[1:], children[p]...)
		command, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p), "cmdline"))
		found = append(found, Proc{p, strings.TrimSpace(string(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))})
	}
	return found
}

// readStat reads /proc/PID/stat; see proc(5). The command's name, in parentheses, may hold anything.
func readStat(dir string) (pid, parent int, ok bool) {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, 0, false
	}
	pid, err = strconv.Atoi(filepath.Base(dir))
	end := bytes.LastIndexByte(b, ')')
	if err != nil || end < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 2 || fields[0] == "Z" {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return pid, parent, err == nil
}
