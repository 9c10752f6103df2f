// Package limits keeps the processes of a version within bounds, counts what they use, and ends what is left of them:
// each version has a cgroup of its own (version 1 or 2) where the host lets this process make one. Where it does not,
// only the number of open files is limited, and [Group.Isolation] says what is not.
package limits

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/durable"
)

// Limits are what the processes of a version may use together; 0 is no limit.
type Limits struct {
	Memory    int64 // bytes
	CPU       int64 // thousandths of a processor
	Pids      int64 // processes and threads
	OpenFiles int64 // of each process
}

// Excess says of each limit, by its name, that there is less here than it allows. It is no error: the same version may run on a larger
// host, too.
func (l Limits) Excess() map[string]string {
	much := map[string]string{}
	if l.CPU > 0 { // each start asks, and few are limited
		n := max(online(), runtime.NumCPU())
		have := "the one processor"
		if n > 1 {
			have = fmt.Sprintf("the %d processors", n)
		}
		if l.CPU > int64(n)*1000 {
			much[string(cpu)] = "more than " + have + " of this host: it limits nothing"
		}
	}
	if have := hostMemory(); have > 0 && l.Memory > have {
		much[string(memory)] = "more than the " + Size(have) + " of this host, which are used up before"
	}
	return much
}

// hostMemory returns the bytes of memory that this host has, 0 if that is not known.
func hostMemory() int64 {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return 0
	}
	return int64(uint64(i.Totalram) * uint64(i.Unit))
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
	// around returns the same for groups that are where a process's group of that name is, nil if it is in none. groups are all that
	// the process is in.
	around(groups map[string]string, name string) layout
	// home returns the directory of the group that the codeserver itself is in, "" if it is in another one by now.
	home() string
	// cpu reads how much processor time a group has used, those below it included.
	cpu(group string) time.Duration
	// weigh gives a group a low weight, or the usual one, in the competition for processors.
	weigh(group string, low bool) error
	// memory reads how many bytes count against the group's limit that are not of files.
	memory(group string) int64
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
	prefix string // of the groups' names
	places string // file of the directories that the groups of codeservers on the state directory are in
	log    *slog.Logger
	hurry  hurry

	lowered lowered
}

// Open finds out what can be limited. The groups of a codeserver are named after its state directory, so that the next
// one finds what this one has left; see Sweep. No other group is between them and what they compete with for processors, the
// codeserver among it: the kernel has who wakes up interrupt who computes all the time (see Balance) only where the two, or groups
// that hold them, are siblings. Of version 2 that is beside the codeserver's own group. Of version 1 it is in it, where its threads are.
func Open(state string, log *slog.Logger) *Host {
	h := &Host{
		prefix: fmt.Sprintf("pexpress-%x", sha256.Sum256([]byte(state)))[:25] + groupMark, places: filepath.Join(state, "cgroups"), log: log,
	}
	for _, open := range []func() (layout, error){openV2, openV1} {
		l, err := open()
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
	g.name = h.prefix + name + "-" + strings.ToLower(rand.Text()[:10])
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

// Adopt returns the group that a process of an earlier codeserver is in, nil if it is in none of this host's. That one can have been
// in another group than this one, and its groups are there.
func (h *Host) Adopt(pid int, l Limits) *Group {
	if h.layout == nil {
		return nil
	}
	groups, err := groupsOf(strconv.Itoa(pid))
	if err != nil {
		return nil
	}
	for _, path := range groups {
		_, name, ok := strings.Cut(path, "/"+h.prefix)
		if !ok {
			continue
		}
		name, _, _ = strings.Cut(name, "/")
		g := &Group{limits: l, name: h.prefix + name}
		g.host = &Host{layout: h.layout.around(groups, g.name), prefix: h.prefix, places: h.places, log: h.log}
		if g.host.layout == nil {
			return nil
		}
		if err := g.watch(); err != nil {
			h.log.Warn("a version's memory is not watched", "cgroup", g.name, "error", err)
		}
		g.host.unlower(g.name) // one that is elsewhere Balance does not see
		return g
	}
	return nil
}

// None returns a group in name only.
func (h *Host) None(l Limits) *Group { return &Group{host: h, limits: l} }

// Sweep ends and removes what an earlier codeserver has left, wherever that one was, but for groups with a process that is
// somebody's: its owner ends them.
func (h *Host) Sweep(owned func(pid int) bool) error {
	var errs []error
	for _, place := range h.allPlaces() {
		for _, name := range below(place, h.prefix) {
			if dir := filepath.Join(place, name); !slices.ContainsFunc(processes(dir), owned) {
				errs = append(errs, End([]string{dir}))
			}
		}
	}
	return errors.Join(errs...)
}

// Remember writes down where the groups are, for the next codeserver and for who ends this one: either can be in another group.
func (h *Host) Remember() error {
	current := h.current()
	places := slices.DeleteFunc(h.allPlaces(), func(place string) bool {
		return !slices.Contains(current, place) && len(below(place, h.prefix)) == 0
	})
	text := []byte(strings.Join(places, "\n"))
	if b, err := os.ReadFile(h.places); err == nil && bytes.Equal(b, text) {
		return nil
	}
	return durable.WriteFile(h.places, text, 0o600)
}

// current are the directories that groups are made in. That which keeps a group from having new processes comes first.
func (h *Host) current() (places []string) {
	if h.layout == nil {
		return nil
	}
	for _, c := range controllers {
		if dir := h.layout.path(c, ""); dir != "" && !slices.Contains(places, dir) {
			places = append(places, dir)
		}
	}
	return places
}

// allPlaces are the directories that groups are made in, or were by an earlier codeserver.
func (h *Host) allPlaces() []string {
	places := h.current()
	b, _ := os.ReadFile(h.places)
	for place := range strings.SplitSeq(string(b), "\n") {
		if place != "" && !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	return places
}

// groups lists the groups of this host's versions and zygotes that a controller has.
func (h *Host) groups(c controller) (names []string) {
	if dir := h.layout.path(c, ""); dir != "" {
		names = below(dir, h.prefix)
	}
	return names
}

// groupMark is between the name of the codeserver and that of the version in a group's name.
const groupMark = ".v-"

var controllers = []controller{pids, memory, cpu, cpuacct}
