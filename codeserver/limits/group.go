package limits

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// Group holds the processes of one start of a version.
type Group struct {
	host   *Host
	name   string // "" if it is one in name only
	limits Limits
	oom    atomic.Bool // it had no memory left to give, and was ended for it
	met    atomic.Bool // one of its limits was met before it was ended
	ending atomic.Bool // no process can be made in it any more
	seen   seen
}

// Dirs returns the group's directories: a process belongs to it that has written itself to cgroup.procs in each of them.
func (g *Group) Dirs() []string {
	if g.name == "" {
		return nil
	}
	var dirs []string
	for _, c := range controllers {
		if dir := g.host.layout.path(c, g.name); dir != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Yield has the group give way to all others for a while: for what ends nobody waits, but where they want all the processors it has to
// come to its end.
func (g *Group) Yield(lasting time.Duration) {
	if g.name == "" {
		return
	}
	if g.host.lower(g.name) != nil {
		return
	}
	time.AfterFunc(lasting, func() { _ = g.host.raise(g.name) }) // it may be gone
}

// Limits returns the limits that it was made with.
func (g *Group) Limits() Limits { return g.limits }

// watch has all of the group ended when one process of it is for lack of memory: a version of which a part is gone is
// one that nobody has tested.
func (g *Group) watch() error {
	if g.limits.Memory == 0 {
		return nil
	}
	err := g.host.layout.watch(g.name, func() {
		g.oom.Store(true)
		_ = kill(g.Dirs())
	})
	if err != nil {
		return fmt.Errorf("watch the memory of cgroup %s: %w", g.name, err)
	}
	return nil
}

// End ends all that is in the group, and removes it.
func (g *Group) End() error {
	_ = g.Met()
	g.ending.Store(true)
	dirs := g.Dirs()
	if err := kill(dirs); err != nil {
		return err
	}
	if g.name != "" {
		n := g.host.layout.usage(g.name)
		g.seen.note(time.Duration(n.cpu), n.peak)
	}
	return removeAll(dirs)
}

// End ends all processes in the group with these directories, and removes it.
func End(dirs []string) error {
	if err := kill(dirs); err != nil {
		return err
	}
	return removeAll(dirs)
}

// zygotePrefix begins the names of zygotes' groups. No location's name begins so.
const zygotePrefix = "_zygote-"

// Zygote makes a group for a zygote of this process, which [EndZygotes] knows it by.
func (h *Host) Zygote(l Limits) (*Group, error) {
	return h.Group(zygotePrefix+strconv.Itoa(os.Getpid()), l)
}

// EndZygotes ends what zygotes of a codeserver that has ended have left: their modules can have started programs. The groups
// with these directories are those of a version of that codeserver.
func EndZygotes(dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		beside, name := filepath.Split(dir)
		codeserver, _, _ := strings.Cut(name, groupMark)
		zygotes := codeserver + groupMark + zygotePrefix
		for _, group := range below(beside, zygotes) {
			pid, _, _ := strings.Cut(strings.TrimPrefix(group, zygotes), "-")
			if n, err := strconv.Atoi(pid); err == nil && hasEnded(n) {
				errs = append(errs, End([]string{filepath.Join(beside, group)}))
			}
		}
	}
	return errors.Join(errs...)
}

// hasEnded reports whether a process has ended, or ends within a moment: who closes his files last of all is still there.
func hasEnded(pid int) bool {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if s, err := proc.ReadStat(pid); err != nil || s.State == 'Z' || s.State == 'X' {
			return true
		}
	}
	return false
}

// patience is how long the end of a process that was killed may take: one that waits for a disk comes back late.
const patience = 5 * time.Second

// kill ends all processes of a group, and returns when they have ended.
func kill(dirs []string) error {
	for _, dir := range dirs {
		// No process can be made while the others are ended. There is no such file where there is no such controller.
		_ = write(filepath.Join(dir, pidsFile), "0")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		var left []int
		for _, dir := range dirs {
			left = append(left, processes(dir)...)
		}
		if len(left) == 0 {
			return nil
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s: %d processes do not end: %v", dirs[0], len(left), left[:min(len(left), 5)])
		}
	}
}

// processes lists those in a group and the groups below it. A version that runs as root can have made some.
func processes(dir string) []int {
	var found []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, line := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 { // 0 is one of another pid namespace
				found = append(found, pid)
			}
		}
		return nil
	})
	return found
}

// removeAll removes groups without processes. The kernel may need a moment after the last one's end.
func removeAll(dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		var err error
		for range 100 {
			if err = removeTree(dir); err == nil || !errors.Is(err, syscall.EBUSY) {
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// below lists the groups below one whose names begin so. The directory is no pattern: systemd writes a "-" as \x2d.
func below(dir, prefix string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// removeTree removes a group and those below it; what the kernel keeps in them is no file to be removed.
func removeTree(dir string) error {
	for _, name := range below(dir, "") {
		if err := removeTree(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Met reports whether a limit of the group's own was in the way of its processes, until End: the memory was used up, or a
// process or thread was refused. Ask before the processes are told to end: their shim removes the group.
func (g *Group) Met() bool {
	if g.name == "" || g.ending.Load() {
		return g.met.Load()
	}
	n := g.host.layout.usage(g.name)
	if g.limits.Memory > 0 && (g.oom.Load() || n.oomKills > 0) || g.limits.Pids > 0 && n.forkErrors > 0 {
		g.met.Store(true)
	}
	return g.met.Load()
}

// Allow lets as many processes into the group, beyond its limit, that are not the version's own.
func (g *Group) Allow(n int64) error {
	if g.name == "" || g.limits.Pids == 0 || g.host.layout.path(pids, g.name) == "" {
		return nil
	}
	return write(filepath.Join(g.host.layout.path(pids, g.name), pidsFile), strconv.FormatInt(g.limits.Pids+n, 10))
}

// pidsFile is where the kernel keeps the limit of processes and threads.
const pidsFile = "pids.max"

// Explain says why a process of the group ended, or does not do its work, as far as a limit explains it, and else what is
// known without. Once the group is ended it knows no more.
func (g *Group) Explain(err error) error {
	if g.name == "" || err == nil || g.ending.Load() {
		return err
	}
	n := g.host.layout.usage(g.name)
	switch {
	case g.limits.Memory > 0 && (g.oom.Load() || n.oomKills > 0):
		return fmt.Errorf("it exceeded its memory limit of %s (peak %s) and was ended", Size(g.limits.Memory), Size(n.peak))
	case g.limits.Pids > 0 && n.forkErrors > 0:
		return fmt.Errorf("%w; it had reached its limit of %d processes and threads", err, g.limits.Pids)
	}
	return err
}

// Isolation says what is in force, and what is not although it was asked for.
func (g *Group) Isolation() []string {
	var say []string
	much := g.limits.Excess()
	add := func(c controller, what, limit string, asked bool) {
		switch {
		case !asked:
		case g.name != "" && g.host.layout.path(c, g.name) != "":
			by := g.host.layout.name()
			if text := much[string(c)]; text != "" {
				by += "; " + text
			}
			say = append(say, what+": "+limit+" ("+by+")")
		case g.name != "":
			say = append(say, what+": not limited to "+limit+" ("+g.host.layout.name()+" has no controller for it here)")
		default:
			say = append(say, what+": not limited to "+limit+" ("+g.host.why+")")
		}
	}
	add(memory, "memory", Size(g.limits.Memory), g.limits.Memory > 0)
	add(cpu, "cpu", strconv.FormatFloat(float64(g.limits.CPU)/1000, 'f', -1, 64), g.limits.CPU > 0)
	add(pids, "pids", strconv.FormatInt(g.limits.Pids, 10), g.limits.Pids > 0)
	if g.limits.OpenFiles > 0 {
		say = append(say, fmt.Sprintf("open files: %d (rlimit)", g.limits.OpenFiles))
	}
	if g.name != "" {
		say = append(say, "processes: ended together ("+g.host.layout.name()+")")
	}
	return say
}

// Size writes a number of bytes as people do: the largest binary unit that leaves a whole number, or one decimal.
func Size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + units[i]
}

// write writes to a file of the kernel's, which is there.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
