package sandbox

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/plugin/sandbox/within"
)

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
	setup := within.Setup{
		Program: program, Args: l.opts.Command, Dir: l.opts.Dir, ReadOnly: append(libraries(program), l.opts.ReadOnly...),
	}
	attr.Cloneflags = namespaces
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	// By this name the program is found even when its file was replaced or removed meanwhile, as an update does.
	cmd := exec.Command("/proc/self/exe", setup.Arguments()...)
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

// libraries returns what a dynamically linked program needs to start; nothing for a static one.
func libraries(program string) []string {
	f, err := elf.Open(program)
	if err == nil {
		defer f.Close()
		dynamic := false
		for _, p := range f.Progs {
			dynamic = dynamic || p.Type == elf.PT_INTERP
		}
		if !dynamic {
			return nil
		}
	}
	// Dynamically linked, or a script whose interpreter is.
	var paths []string
	for _, path := range []string{"/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache"} {
		if _, err := os.Stat(path); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}
