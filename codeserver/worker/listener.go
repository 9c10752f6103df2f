package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// What Listening finds instead of the worker.
var (
	ErrNobody   = errors.New("nothing listens on its port")
	ErrStranger = errors.New("another process answers on the port that was meant for it")
)

// Listening returns the sockets that are asked when somebody connects to a port of 127.0.0.1: each is one of the worker's processes'. A
// port that was free when it was chosen can be somebody else's by the time the worker would listen on it, and an answer from
// there says nothing about the worker. Where the kernel does not say who listens, there are none and no error.
func (w *Worker) Listening(port int) ([]proc.Listener, error) {
	all, err := proc.Listeners(port)
	if err != nil {
		return nil, nil //nolint:nilerr // it is not known
	}
	all = slices.DeleteFunc(all, func(l proc.Listener) bool { return !isAsked(l) })
	if len(all) == 0 {
		return nil, fmt.Errorf("%w, %d of 127.0.0.1", ErrNobody, port)
	}
	left := map[string]proc.Listener{} // by the name that links in /proc/PID/fd have
	for _, l := range all {
		left[fmt.Sprintf("socket:[%d]", l.Inode)] = l
	}
	take(w.pid, left)
	if len(left) > 0 { // it is rarely another one
		for _, pid := range w.others() {
			take(pid, left)
		}
	}
	if len(left) > 0 {
		return nil, ErrStranger
	}
	return all, nil
}

// isAsked reports whether a socket is asked when somebody connects to 127.0.0.1.
func isAsked(l proc.Listener) bool {
	a := l.Address.Addr()
	return a.IsUnspecified() && !l.V6Only || a == netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// others are the processes below the worker's, and those that have lost their parent: they are below the one above it then, which has
// no other worker.
func (w *Worker) others() (pids []int) {
	top := w.pid
	if s, err := proc.ReadStat(w.pid); err == nil && s.Parent > 1 && s.Parent != os.Getpid() {
		top = s.Parent
	}
	for _, p := range Descendants(top) {
		pids = append(pids, p.PID)
	}
	return pids
}

// take removes the sockets that a process has. Where this process may not look, as without CAP_SYS_PTRACE, it has those of its user:
// no two locations have the same one then.
func take(pid int, left map[string]proc.Listener) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	blind := errors.Is(err, fs.ErrPermission)
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, fd.Name()))
		blind = blind || errors.Is(err, fs.ErrPermission)
		delete(left, target)
	}
	if !blind {
		return
	}
	status, _ := proc.Status(pid)                           // it may have ended
	if ids := strings.Fields(status["Uid"]); len(ids) > 1 { // the real and the effective one
		maps.DeleteFunc(left, func(_ string, l proc.Listener) bool { return strconv.FormatUint(uint64(l.User), 10) == ids[1] })
	}
}
