// Package limits keeps the processes of a version within bounds, counts what they use, and ends what is left of them:
// each version has a cgroup of its own (version 1 or 2) where the host lets this process make one. Where it does not,
// only the number of open files is limited, and [Group.Isolation] says what is not.
package limits

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits are what the processes of a version may use together; 0 is no limit.
type Limits struct {
	Memory    int64 // bytes
	CPU       int64 // thousandths of a processor
	Pids      int64 // processes and threads
	OpenFiles int64 // of each process
}

// controller is what a cgroup can limit or count.
type controller string

const (
	memory  controller = "memory"
	cpu     controller = "cpu"
	cpuacct controller = "cpuacct" // version 1 only; 2 counts processor time by itself
	pids    controller = "pids"
)

// layout is one version of the kernel's cgroups, and where in them this process may make groups.
type layout interface {
	// name is what people call it.
	name() string
	// path returns the directory of a group for a controller, "" if that one is not there.
	path(c controller, group string) string
	// make makes a group and sets its limits.
	make(group string, l Limits) error
	// watch calls end when the group has no memory left to give, if the kernel does not end all of it by itself.
	watch(group string, end func()) error
	// usage reads what the kernel counts: what there is not is 0.
	usage(group string) counts
}

// counts are what the kernel has counted of a group.
type counts struct {
	cpu        int64 // nanoseconds
	peak       int64 // bytes
	oomKills   int64
	forkErrors int64 // forks refused for the limit
}

// Host makes the groups of one codeserver.
type Host struct {
	layout layout // nil if there can be no groups
	why    string // there can be none
	parent string // of the groups
	log    *slog.Logger
}

// Open finds out what can be limited. The groups of a codeserver are named after its state directory, so that the next
// one finds what this one has left; see Sweep.
func Open(state string, log *slog.Logger) *Host {
	h := &Host{parent: fmt.Sprintf("pexpress-%x", sha256.Sum256([]byte(state)))[:25], log: log}
	for _, open := range []func(parent string) (layout, error){openV2, openV1} {
		l, err := open(h.parent)
		if err == nil {
			h.layout = l
			return h
		}
		if !errors.Is(err, errAbsent) || h.why == "" {
			h.why = err.Error()
		}
	}
	log.Warn("versions have no cgroups of their own: their memory, processors and processes cannot be limited, and what "+
		"a version leaves behind when its shim is killed is not found", "error", h.why)
	return h
}

// errAbsent says that the host has no cgroups of that version, or none that can limit anything.
var errAbsent = errors.New("no cgroups")

// Group makes a group for one start of a version. The name need not be unique. Without cgroups the group is one in name
// only: Isolation says so.
func (h *Host) Group(name string, l Limits) (*Group, error) {
	g := h.None(l)
	if h.layout == nil {
		return g, nil
	}
	g.name = filepath.Join(h.parent, "v-"+name+"-"+strings.ToLower(rand.Text()[:10]))
	err := h.layout.make(g.name, l)
	if err == nil {
		err = g.watch()
	}
	if err == nil {
		return g, nil
	}
	err = fmt.Errorf("make the cgroup %s: %w", g.name, errors.Join(err, removeAll(g.Dirs())))
	if l.Memory > 0 || l.CPU > 0 || l.Pids > 0 {
		return nil, err
	}
	h.log.Warn("a version has no cgroup of its own", "error", err)
	return h.None(l), nil
}

// Adopt returns the group that a process of an earlier codeserver is in, nil if it is in none of this host's.
func (h *Host) Adopt(pid int, l Limits) *Group {
	if h.layout == nil {
		return nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		_, name, ok := strings.Cut(strings.TrimSpace(line), "/"+h.parent+"/")
		if !ok || name == "" {
			continue
		}
		first, _, _ := strings.Cut(name, "/")
		g := &Group{host: h, limits: l, name: filepath.Join(h.parent, first)}
		if err := g.watch(); err != nil {
			h.log.Warn("a version's memory is not watched", "cgroup", g.name, "error", err)
		}
		return g
	}
	return nil
}

// None returns a group in name only.
func (h *Host) None(l Limits) *Group { return &Group{host: h, limits: l} }

// Sweep ends and removes what an earlier codeserver has left, but for groups with a process that is somebody's: its owner
// ends them.
func (h *Host) Sweep(owned func(pid int) bool) error {
	if h.layout == nil {
		return nil
	}
	var errs []error
	for _, c := range controllers {
		dirs, _ := filepath.Glob(filepath.Join(h.layout.path(c, h.parent), "v-*"))
		for _, dir := range dirs {
			g := &Group{host: h, name: filepath.Join(h.parent, filepath.Base(dir))}
			if !slices.ContainsFunc(processes(dir), owned) {
				errs = append(errs, g.End())
			}
		}
	}
	return errors.Join(errs...)
}

// Close removes the groups' parent, unless versions are left in it.
func (h *Host) Close() {
	if h.layout == nil {
		return
	}
	for _, c := range controllers {
		if dir := h.layout.path(c, h.parent); dir != "" {
			_ = os.Remove(dir)
		}
	}
}

var controllers = []controller{pids, memory, cpu, cpuacct}
