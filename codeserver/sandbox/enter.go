package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enterArg is the first argument of this program when it is to enter a sandbox and then execute another.
const enterArg = "pexpress-sandbox"

// entry is what it is told.
type entry struct {
	Spec   *Spec
	Path   string
	Args   []string
	Env    []string
	Dir    string
	Groups []string // directories of the cgroup that it moves itself to
	Pids   int64    // how many processes and threads that one may have in the end; 0 leaves it as it is
	Fatal  bool     // it ends with its parent
	Parent int
}

// Wrap changes a command so that it is executed in a sandbox, and in the cgroup with these directories. The program that
// calls it must call Main first thing. The function that it returns is to be called when the command has been started, or could
// not be.
//
// What is executed first runs as root, and has nothing of the command's environment in its own. It is a Go program, which fails
// if it needs one more thread than the cgroup may have: the cgroup's limit is pids, if that is not 0, from when the command itself
// is executed.
func Wrap(cmd *exec.Cmd, s *Spec, groups []string, pids int64) (started func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	e := entry{Spec: s, Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir, Groups: groups, Pids: pids, Parent: os.Getpid()}
	if a := cmd.SysProcAttr; a != nil {
		// The kernel forgets it when the user changes.
		e.Fatal = a.Pdeathsig == syscall.SIGKILL
	}
	fd, err := unix.MemfdCreate("sandbox", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "sandbox")
	if err := json.NewEncoder(f).Encode(e); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	cmd.Path, cmd.Args = self, []string{self, enterArg, strconv.Itoa(len(cmd.ExtraFiles) + 2)}
	cmd.Env, cmd.Dir, cmd.Err = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1"}, "/", nil
	return func() { f.Close() }, nil
}

// Main enters a sandbox if this process was started for it by Wrap, and does not return then.
func Main() {
	if len(os.Args) != 3 || os.Args[1] != enterArg {
		return
	}
	runtime.LockOSThread() // namespaces and users are a thread's; the one that executes a program is what remains
	if err := enter(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "codeserver sandbox:", err)
	}
	os.Exit(125)
}

func enter(descriptor string) error {
	fd, err := strconv.Atoi(descriptor)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "sandbox")
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	var e entry
	if err := json.NewDecoder(f).Decode(&e); err != nil {
		return fmt.Errorf("read what to execute: %w", err)
	}
	f.Close()
	limit, err := e.join()
	if err != nil {
		return err
	}
	mounts, err := makeAll(e.Spec)
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWIPC); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := sealHost(); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := m.attach(); err != nil {
			return err
		}
	}
	closeAll(mounts)
	if err := drop(e.Spec.User); err != nil {
		return err
	}
	// As its user, and in its file system: a working directory outside would be a way out.
	if err := unix.Chdir(e.Dir); err != nil {
		return fmt.Errorf("the working directory %s: %w", e.Dir, err)
	}
	if e.Fatal {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl", err)
		}
		if os.Getppid() != e.Parent {
			return errors.New("who started it has ended")
		}
	}
	return fmt.Errorf("execute %s: %w", e.Path, e.execute(limit))
}

// sealHost makes all of the host's file system read only for this process, and has mounts here and there be apart.
func sealHost() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, attr); err != nil {
		return os.NewSyscallError("mount_setattr", err)
	}
	return nil
}

// drop makes the calling thread one of a user without privileges.
func drop(user int) error {
	for c := range uintptr(64) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			break // there are no more
		}
	}
	id := uintptr(user)
	for _, call := range []struct {
		name       string
		number     uintptr
		a1, a2, a3 uintptr
	}{
		{"setgroups", unix.SYS_SETGROUPS, 0, 0, 0},
		{"setresgid", unix.SYS_SETRESGID, id, id, id},
		{"setresuid", unix.SYS_SETRESUID, id, id, id},
		{"prctl", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0},
	} {
		if _, _, errno := unix.RawSyscall(call.number, call.a1, call.a2, call.a3); errno != 0 {
			return os.NewSyscallError(call.name, errno)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}
