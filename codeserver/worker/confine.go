package worker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/proc"
)

// Confinement is what a version's process is put into before it executes anything.
type Confinement struct {
	// Groups are the directories of its cgroup.
	Groups []string `json:"groups"`
	// OpenFiles is how many files it may have open; 0 leaves it at what the codeserver has.
	OpenFiles int64 `json:"open_files"`
}

func confinement(spec Spec) Confinement {
	g := spec.Group
	if g == nil {
		return Confinement{}
	}
	return Confinement{Groups: g.Dirs(), OpenFiles: g.Limits().OpenFiles}
}

// groupsVariable tells a shim which cgroup is its version's.
const groupsVariable = "PEXPRESS_WORKER_GROUPS"

// Variables are the environment of the shim of a process that is confined so.
func (c Confinement) Variables() []string {
	return []string{"GOMAXPROCS=1", "GOGC=off", groupsVariable + "=" + strings.Join(c.Groups, "\n")}
}

// endGroup ends what is left in the version's cgroup, and removes it, when the codeserver is gone or wants the version to
// end. One that is gone has left its zygotes' groups, too.
func endGroup(gone bool) (err error) {
	groups := os.Getenv(groupsVariable)
	if groups == "" {
		return nil
	}
	dirs := strings.Split(groups, "\n")
	if gone {
		err = limits.EndZygotes(dirs)
	}
	return errors.Join(err, limits.End(dirs))
}

// start starts a process in its confinement. The caller has locked its goroutine to its thread.
//
// Of cgroups version 1 it is this thread that is in the group while it starts the process, which is born there. Version 2
// does not part threads; it has the process made in the group.
func (c Confinement) start(cmd *exec.Cmd) (err error) {
	if c.OpenFiles > 0 {
		n := uint64(c.OpenFiles)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit open files to %d, which may be more than this host allows: %w", n, err)
		}
	}
	for _, group := range c.Groups {
		if _, v1 := os.Stat(filepath.Join(group, "tasks")); v1 != nil {
			dir, err := os.Open(group)
			if err != nil {
				return err
			}
			defer dir.Close()
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
			continue
		}
		// The codeserver's own group is the one above those of its versions.
		home := filepath.Dir(group)
		defer func() { err = errors.Join(err, joinThread(home)) }()
		if err := joinThread(group); err != nil {
			return err
		}
	}
	return cmd.Start()
}

// Owned reports whether a process is a version's with a shim that watches over it.
func Owned(pid int) bool {
	s, err := proc.ReadStat(pid)
	if err != nil || s.State == 'Z' {
		return false
	}
	b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.Parent), "cmdline"))
	args := strings.Split(string(b), "\x00")
	return len(args) > 1 && (args[1] == shimArg || args[1] == forkedArg)
}

// joinThread moves this thread to a cgroup of version 1.
func joinThread(group string) error {
	f, err := os.OpenFile(filepath.Join(group, "tasks"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("0") // is the thread that writes
	return errors.Join(err, f.Close())
}
