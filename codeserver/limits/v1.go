package limits

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// v1 is the layout of cgroups version 1: each controller has a tree of its own.
type v1 struct {
	root string                // the directory that has the controllers' trees
	base map[controller]string // the codeserver's own group in each tree that it can make groups in, below what is mounted
	own  map[controller]string // the same, as the kernel names it
	all  map[controller]mount
}

// openV1 finds the trees in which this process may make groups.
func openV1() (layout, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	groups, err := own()
	if err != nil {
		return nil, err
	}
	v := &v1{base: map[controller]string{}, own: map[controller]string{}, all: map[controller]mount{}}
	var errs []error
	for _, m := range all {
		for _, c := range controllers {
			dir := filepath.Join(filepath.Dir(m.dir), string(c))
			if _, err := os.Stat(dir); err != nil || m.kind != "cgroup" || !slices.Contains(m.options, string(c)) {
				continue
			}
			base := m.below(groups[string(c)])
			if err := unix.Access(filepath.Join(dir, base), unix.W_OK); err != nil {
				errs = append(errs, &fs.PathError{Op: "make a group in", Path: filepath.Join(dir, base), Err: err})
				continue
			}
			v.root, v.base[c], v.own[c], v.all[c] = filepath.Dir(m.dir), base, groups[string(c)], m
		}
	}
	if len(v.base) == 0 && len(errs) > 0 {
		return nil, errs[0]
	}
	if len(v.base) == 0 {
		return nil, fmt.Errorf("%w of version 1 with a controller", errAbsent)
	}
	return v, nil
}

func (v *v1) name() string { return "cgroup v1" }

func (v *v1) path(c controller, group string) string {
	base, ok := v.base[c]
	if !ok {
		return ""
	}
	return filepath.Join(v.root, string(c), base, group)
}

func (v *v1) around(groups map[string]string, name string) layout {
	there := &v1{root: v.root, base: map[controller]string{}, own: v.own, all: v.all}
	for c, m := range v.all {
		if base, ok := m.around(groups[string(c)], name); ok {
			there.base[c] = base
		}
	}
	if len(there.base) == 0 {
		return nil
	}
	return there
}

func (v *v1) home() string {
	groups, err := own()
	for _, c := range controllers {
		if group, ok := v.own[c]; ok && err == nil && groups[string(c)] == group {
			return v.path(c, "")
		}
	}
	return ""
}

// subsystems are the controllers that are there, as the library has them.
func (v *v1) subsystems() ([]cgroup1.Subsystem, error) {
	var s []cgroup1.Subsystem
	for c := range v.base {
		switch c {
		case memory:
			s = append(s, cgroup1.NewMemory(v.root))
		case cpu:
			s = append(s, cgroup1.NewCpu(v.root))
		case cpuacct:
			s = append(s, cgroup1.NewCpuacct(v.root))
		case pids:
			s = append(s, cgroup1.NewPids(v.root))
		}
	}
	return s, nil
}

func (v *v1) place(group string) cgroup1.Path {
	return func(name cgroup1.Name) (string, error) {
		return "/" + filepath.Join(v.base[controller(name)], group), nil
	}
}

func (v *v1) make(group string, l Limits) error {
	r := &specs.LinuxResources{}
	if l.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &l.Memory}
		// What does not fit goes nowhere else, where the kernel counts swap.
		if _, err := os.Stat(filepath.Join(v.path(memory, ""), "memory.memsw.limit_in_bytes")); err == nil {
			r.Memory.Swap = &l.Memory
		}
	}
	if l.CPU > 0 {
		period, quota := uint64(cpuPeriod), l.CPU*cpuPeriod/1000
		r.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if l.Pids > 0 {
		r.Pids = &specs.LinuxPids{Limit: &l.Pids}
	}
	_, err := cgroup1.New(v.place(group), r, cgroup1.WithHierarchy(v.subsystems))
	return err
}

// cpuPeriod is the time in which a share of the processors is given, in microseconds: the kernel's default.
const cpuPeriod = 100_000

// watch waits for the kernel's word that the group has no memory left. It then ends one process only. The end of the
// group is the end of the watch.
func (v *v1) watch(group string, end func()) error {
	if v.base[memory] == "" {
		return nil
	}
	c, err := cgroup1.Load(v.place(group), cgroup1.WithHierarchy(v.subsystems))
	if err != nil {
		return err
	}
	fd, err := c.OOMEventFD()
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(int(fd), true); err != nil {
		return errors.Join(err, unix.Close(int(fd)))
	}
	events := os.NewFile(fd, "oom events")
	dir := v.path(memory, group)
	go func() {
		defer events.Close()
		var b [8]byte
		for {
			if _, err := events.Read(b[:]); err != nil || binary.NativeEndian.Uint64(b[:]) == 0 {
				return
			}
			if _, err := os.Stat(dir); err != nil {
				return // its removal is an event, too
			}
			end()
		}
	}()
	return nil
}

func (v *v1) cpu(group string) time.Duration {
	return time.Duration(number(filepath.Join(v.path(cpuacct, group), "cpuacct.usage")))
}

func (v *v1) weigh(group string, low bool) error {
	return yield(v.path(cpu, group), low, "cpu.shares", "2", "1024") // the least, and the kernel's default
}

func (v *v1) memory(group string) int64 {
	return keyed(filepath.Join(v.path(memory, group), "memory.stat"), "total_rss")
}

func (v *v1) usage(group string) counts {
	n := counts{}
	if dir := v.path(memory, group); dir != "" {
		n.peak = number(filepath.Join(dir, "memory.max_usage_in_bytes"))
		n.oomKills = keyed(filepath.Join(dir, "memory.oom_control"), "oom_kill")
	}
	if dir := v.path(cpuacct, group); dir != "" {
		n.cpu = number(filepath.Join(dir, "cpuacct.usage"))
	}
	if dir := v.path(pids, group); dir != "" {
		n.forkErrors = keyed(filepath.Join(dir, "pids.events"), "max")
	}
	return n
}

// number reads a file with one number in it; 0 if there is none.
func number(path string) int64 {
	var n int64
	b, _ := os.ReadFile(path)
	_, _ = fmt.Sscan(string(b), &n)
	return n
}

// keyed reads the number behind a key, in a file of lines with a key and a number; 0 if there is none.
func keyed(path, key string) int64 {
	var n int64
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, key+" "); ok {
			_, _ = fmt.Sscan(value, &n)
		}
	}
	return n
}
