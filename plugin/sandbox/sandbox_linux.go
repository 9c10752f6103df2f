package sandbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// initArg is the first argument of a process that sets up its isolation and then becomes the builder.
const initArg = "pexpress-sandbox-init"

// setup is what such a process is told, as its second argument.
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
		cmd.Env, cmd.SysProcAttr = append(os.Environ(), env...), attr
		return cmd, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	arg, err := json.Marshal(setup{l.program, l.opts.Command, l.opts.Dir, append(libraries(l.program), l.opts.ReadOnly...)})
	if err != nil {
		return nil, err
	}
	attr.Cloneflags = namespaces
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	cmd := exec.Command(self, initArg, string(arg))
	cmd.Env, cmd.SysProcAttr = append(env, "TMPDIR=/tmp", "PATH=/usr/bin:/bin"), attr
	return cmd, nil
}

func lockThread() { runtime.LockOSThread() }

func killGroup(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	_ = p.Kill()
}
