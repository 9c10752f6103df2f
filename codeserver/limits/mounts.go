package limits

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mount is a mounted hierarchy of cgroups.
type mount struct {
	root    string // the group that is mounted
	dir     string // where
	kind    string // cgroup or cgroup2
	options []string
}

// mounts lists the hierarchies that are mounted; see proc_pid_mountinfo(5).
func mounts() ([]mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []mount
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+4 || f[dash+1] != "cgroup" && f[dash+1] != "cgroup2" {
			continue
		}
		found = append(found, mount{root: f[3], dir: f[4], kind: f[dash+1], options: strings.Split(f[dash+3], ",")})
	}
	return found, nil
}

// own returns the groups that this process is in.
func own() (map[string]string, error) { return groupsOf("self") }

// groupsOf returns the group that a process is in, by controller, "" for version 2; see cgroups(7).
func groupsOf(pid string) (map[string]string, error) {
	b, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return nil, err
	}
	groups := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("/proc/%s/cgroup has a line %q", pid, line)
		}
		for _, c := range strings.Split(f[1], ",") {
			groups[c] = f[2]
		}
	}
	return groups, nil
}

// below returns a group's path below what is mounted. In a container the mount shows a part of the hierarchy.
func (m *mount) below(group string) string {
	if rel, err := filepath.Rel(m.root, group); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return "."
}

// around returns the path below what is mounted of the group that a group of that name is in, or what is below that.
func (m *mount) around(group, name string) (base string, ok bool) {
	base, _, ok = strings.Cut(group, "/"+name)
	return m.below(cmp.Or(base, "/")), ok
}
