package worker

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Listens reports whether the worker's process, or one below it, listens on a TCP port. A port that was free when it was
// chosen can be somebody else's by the time the version would listen on it, and an answer from there says nothing about
// the version. Where the kernel's tables cannot be read, or name no listener, the answer is true.
func (w *Worker) Listens(port int) bool {
	sockets := listeners(port)
	if len(sockets) == 0 {
		return true
	}
	pids := []int{w.pid}
	for _, p := range Descendants(w.pid) {
		pids = append(pids, p.PID)
	}
	for _, pid := range pids {
		fds, _ := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
		for _, fd := range fds {
			target, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "fd", fd.Name()))
			if err == nil && sockets[target] {
				return true
			}
		}
	}
	return false
}

// listeners returns the sockets that listen on a port, as links in /proc/PID/fd name them; see proc_net_tcp.txt of the
// kernel's documentation.
func listeners(port int) map[string]bool {
	const listening = "0A"
	found := map[string]bool{}
	suffix := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, _ := os.ReadFile(table)
		for line := range bytes.Lines(b) {
			f := strings.Fields(string(line))
			if len(f) > 9 && strings.HasSuffix(f[1], suffix) && f[3] == listening {
				found["socket:["+f[9]+"]"] = true
			}
		}
	}
	return found
}
