package limits

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
)

// v2 is the layout of cgroups version 2: one tree, in which a group with processes cannot have others with limits below
// it. The codeserver's own process therefore moves to a group of its own beside those of versions. Where systemd has
// put it there (DelegateSubgroup=codeserver) it stays.
//
// The machine that this was written on has a version 2 without controllers: finding that out is tested, the rest has
// not run.
type v2 struct {
	mount string
	all   mount
	base  string // the group that holds the codeserver's and the versions', below the mount
	has   []string
}

// ownGroup is the name of the group that holds the codeserver itself.
const ownGroup = "codeserver"

func openV2() (layout, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	groups, err := own()
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.kind != "cgroup2" {
			continue
		}
		v := &v2{mount: m.dir, all: m, base: m.below(groups[""])}
		b, err := os.ReadFile(filepath.Join(v.mount, v.base, "cgroup.controllers"))
		if err != nil {
			return nil, err
		}
		for _, c := range strings.Fields(string(b)) {
			if slices.Contains(controllers, controller(c)) {
				v.has = append(v.has, c)
			}
		}
		if len(v.has) == 0 {
			continue
		}
		if err := v.delegate(); err != nil {
			return nil, err
		}
		return v, nil
	}
	return nil, fmt.Errorf("%w of version 2 with a controller", errAbsent)
}

// delegate makes room for groups beside the codeserver's own.
func (v *v2) delegate() error {
	if filepath.Base(v.base) == ownGroup {
		v.base = filepath.Dir(v.base)
	} else {
		leaf := filepath.Join(v.mount, v.base, ownGroup)
		if err := os.MkdirAll(leaf, 0o755); err != nil {
			return err
		}
		if err := write(filepath.Join(leaf, "cgroup.procs"), strconv.Itoa(os.Getpid())); err != nil {
			return fmt.Errorf("move the codeserver to %s: %w", leaf, err)
		}
	}
	dir := filepath.Join(v.mount, v.base)
	if err := write(filepath.Join(dir, "cgroup.subtree_control"), "+"+strings.Join(v.has, " +")); err != nil {
		return fmt.Errorf("give the groups in %s controllers, which needs a group without other processes (systemd: Delegate=yes, DelegateSubgroup=%s): %w",
			dir, ownGroup, err)
	}
	return nil
}

func (v *v2) name() string { return "cgroup v2" }

func (v *v2) path(c controller, group string) string {
	if !slices.Contains(v.has, string(c)) {
		return ""
	}
	return filepath.Join(v.mount, v.base, group)
}

func (v *v2) around(groups map[string]string, name string) layout {
	base, ok := v.all.around(groups[""], name)
	if !ok {
		return nil
	}
	return &v2{mount: v.mount, all: v.all, base: base, has: v.has}
}

func (v *v2) home() string {
	groups, err := own()
	if err != nil || filepath.Base(groups[""]) != ownGroup {
		return ""
	}
	return filepath.Join(v.mount, v.base, ownGroup)
}

func (v *v2) make(group string, l Limits) error {
	r := &cgroup2.Resources{}
	has := func(c controller) bool { return v.path(c, group) != "" }
	if l.Memory > 0 && has(memory) {
		none, whole := int64(0), true
		r.Memory = &cgroup2.Memory{Max: &l.Memory, OOMGroup: &whole}
		if _, err := os.Stat(filepath.Join(v.mount, v.base, ownGroup, "memory.swap.max")); err == nil {
			r.Memory.Swap = &none
		}
	}
	if l.CPU > 0 && has(cpu) {
		quota := l.CPU * cpuPeriod / 1000
		r.CPU = &cgroup2.CPU{Max: cgroup2.NewCPUMax(&quota, nil)}
	}
	if l.Pids > 0 && has(pids) {
		r.Pids = &cgroup2.Pids{Max: l.Pids}
	}
	_, err := cgroup2.NewManager(v.mount, filepath.Join("/", v.base, group), r)
	return err
}

// watch does nothing: memory.oom.group has the kernel end all of the group.
func (v *v2) watch(string, func()) error { return nil }

func (v *v2) cpu(group string) time.Duration {
	return time.Duration(1000 * keyed(filepath.Join(v.mount, v.base, group, "cpu.stat"), "usage_usec"))
}

func (v *v2) weigh(group string, low bool) error {
	return yield(filepath.Join(v.mount, v.base, group), low, "cpu.weight", "1", "100") // the least, and the kernel's default
}

func (v *v2) memory(group string) int64 {
	return keyed(filepath.Join(v.mount, v.base, group, "memory.stat"), "anon")
}

func (v *v2) usage(group string) counts {
	dir := filepath.Join(v.mount, v.base, group)
	return counts{
		cpu:        1000 * keyed(filepath.Join(dir, "cpu.stat"), "usage_usec"),
		peak:       number(filepath.Join(dir, "memory.peak")),
		oomKills:   keyed(filepath.Join(dir, "memory.events"), "oom_kill"),
		forkErrors: keyed(filepath.Join(dir, "pids.events"), "max"),
	}
}
