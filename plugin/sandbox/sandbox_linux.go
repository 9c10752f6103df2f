package sandbox

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// setup is what a process that becomes a sandbox is told, as its second argument.
type setup struct {
	Program  string
	Args     []string
	Dir      string
	ReadOnly []string
}

const namespaces = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
	syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS

// command returns what to start: the builder, or this program as its sandbox.
func (l *Launched) command(env []string) (*exec.Cmd, error) {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if !l.opts.Isolate {
		cmd := exec.Command(l.program, l.opts.Command[1:]...)
		cmd.Env, cmd.SysProcAttr = append(plainEnvironment(), env...), attr
		return cmd, nil
	}
	// A symlink may lead through directories that are not there inside.
	program, err := filepath.EvalSymlinks(l.program)
	if err != nil {
		return nil, err
	}
	arg, err := json.Marshal(setup{program, l.opts.Command, l.opts.Dir, append(libraries(program), l.opts.ReadOnly...)})
	if err != nil {
		return nil, err
	}
	attr.Cloneflags = namespaces
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	// By this name the program is found even when its file was replaced or removed meanwhile, as an update does.
	cmd := exec.Command("/proc/self/exe", initArg, string(arg))
	cmd.Env, cmd.SysProcAttr = append(env, "TMPDIR=/tmp", "PATH=/usr/bin:/bin"), attr
	return cmd, nil
}

func lockThread() { runtime.LockOSThread() }

// await waits for the process to end and ends what is left of its group. Until the process is reaped its pid, and so
// the group's, cannot come to name another one.
func (l *Launched) await(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	killGroup(cmd.Process.Pid)
	l.err = cmd.Wait()
	l.running = false
}

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }
