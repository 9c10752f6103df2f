package worker

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// Proc is a process of this machine.
type Proc struct {
	PID     int
	Command string // its arguments, separated by spaces
}

// Descendants lists the processes below pid, zombies left out.
func Descendants(pid int) []Proc {
	children := map[int][]int{}
	for _, s := range proc.All() {
		if s.State != 'Z' {
			children[s.Parent] = append(children[s.Parent], s.PID)
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
