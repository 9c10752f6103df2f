package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// Listens reports whether the worker's process, or one below it, listens on a TCP port. A port that was free when it was
// chosen can be somebody else's by the time the version would listen on it, and an answer from there says nothing about
// the version. Where the kernel does not say who listens, or names nobody, the answer is true.
func (w *Worker) Listens(port int) bool {
	inodes, err := proc.Listeners(port)
	if err != nil || len(inodes) == 0 {
		return true
	}
	sockets := map[string]bool{} // as links in /proc/PID/fd name them
	for _, inode := range inodes {
		sockets[fmt.Sprintf("socket:[%d]", inode)] = true
	}
	if hasOne(w.pid, sockets) {
		return true
	}
	for _, p := range Descendants(w.pid) {
		if hasOne(p.PID, sockets) {
			return true
		}
	}
	return false
}

// hasOne reports whether a process has one of these sockets.
func hasOne(pid int, sockets map[string]bool) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, _ := os.ReadDir(dir)
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && sockets[target] {
			return true
		}
	}
	return false
}
