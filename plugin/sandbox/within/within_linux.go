// Package within is the inside of a sandbox before the builder is there: the program of the host, started again, sets up the
// isolation and becomes the builder.
//
// It does so while packages are initialised, and imports next to nothing, so that this comes before the protocol buffers, the
// clients of clouds and the command line of the program are made ready, for nothing: that is most of what such a start costs.
package within

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Arg is the first argument of a process that sets up its isolation and then becomes the builder.
const Arg = "pexpress-sandbox-init"

// The descriptors that exec.Cmd.ExtraFiles passes on: the lifeline, and for a sandbox being set up the pipe on which it
// says what went wrong.
const (
	LifelineFD = 3
	SetupFD    = 4
)

// exitSetup is the exit status of a sandbox that could not be set up, or could not start its builder.
const exitSetup = 125

// Setup is what a process that becomes a sandbox is told, as its second argument.
type Setup struct {
	Program  string
	Args     []string
	Dir      string
	ReadOnly []string
}

func init() {
	if len(os.Args) != 3 || os.Args[1] != Arg {
		return
	}
	// Capabilities, no_new_privs and the parent-death signal are a thread's own: what gives them up must be the thread
	// that becomes the builder.
	runtime.LockOSThread()
	// The builder must not be able to write here: what is read from it decides whether it is run without isolation.
	unix.CloseOnExec(SetupFD)
	err := becomeBuilder(os.Args[2])
	if !errors.As(err, new(*execError)) && NotAllowed(err) {
		_, _ = fmt.Fprint(os.NewFile(SetupFD, "setup"), err)
	}
	fmt.Fprintln(os.Stderr, "sandbox:", err)
	os.Exit(exitSetup)
}

// NotAllowed reports whether an error is this machine's refusal of isolation. Any other, such as too many open files or
// a path that is not there, must not cost the isolation: it is an error.
func NotAllowed(err error) bool {
	for _, e := range []unix.Errno{
		unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EINVAL, unix.ENOSPC, unix.EUSERS, unix.ENODEV, unix.EOPNOTSUPP,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// execError says that a sandbox is set up and the builder does not start in it: that is no failure of the isolation.
type execError struct {
	program string
	err     error
}

func (e *execError) Error() string {
	hint := ""
	if errors.Is(e.err, unix.ENOENT) {
		hint = " (its interpreter or loader is not among what it may read in there)"
	}
	return fmt.Sprintf("start %s: %v%s", e.program, e.err, hint)
}

func (e *execError) Unwrap() error { return e.err }

func becomeBuilder(arg string) error {
	var s Setup
	if err := json.Unmarshal([]byte(arg), &s); err != nil {
		return err
	}
	program, err := newRoot(s)
	if err != nil {
		return err
	}
	if err := dropPrivileges(); err != nil {
		return err
	}
	// Set again for the exec below; the host may have died meanwhile, which its end of the lifeline then shows.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent-death signal: %w", err)
	}
	poll := []unix.PollFd{{Fd: LifelineFD, Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); err == nil && n > 0 {
		return errors.New("the host is gone")
	}
	return &execError{s.Program, unix.Exec(program, s.Args, os.Environ())}
}

// newRoot makes a root file system that holds the program, the sockets and what else may be read, and enters it.
func newRoot(s Setup) (program string, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("make mounts private: %w", err)
	}
	root := filepath.Join(s.Dir, "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=256m,mode=0755"); err != nil {
		return "", fmt.Errorf("mount a root: %w", err)
	}
	program = "/builder"
	if under(s.Program, s.ReadOnly) {
		program = s.Program
	} else if err := readOnly(s.Program, root+program); err != nil {
		return "", err
	}
	for _, path := range s.ReadOnly {
		if err := readOnly(path, root+path); err != nil {
			return "", err
		}
	}
	for _, path := range []string{"/dev/null", "/dev/urandom", s.Dir} {
		// Not recursive: below s.Dir this very root is mounted.
		if err := bind(path, root+path, 0); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(root+"/tmp", 0o700); err != nil {
		return "", err
	}
	old := root + "/.old"
	if err := os.Mkdir(old, 0o700); err != nil {
		return "", err
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return "", fmt.Errorf("enter the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return "", err
	}
	if err := unix.Unmount("/.old", unix.MNT_DETACH); err != nil {
		return "", fmt.Errorf("leave the host's root: %w", err)
	}
	return program, os.Remove("/.old")
}

// bind makes what is at from appear at to.
func bind(from, to string, flags uintptr) error {
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if st.IsDir() {
		err = os.MkdirAll(to, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
		err = touch(to)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|flags, ""); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	return nil
}

// touch makes a file to mount on, unless there is one: below a directory that is mounted read-only already.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// readOnly makes what is at from appear at to, and all that is mounted below it, read-only.
func readOnly(from, to string) error {
	// A part of a tree of mounts cannot be bound without the rest: a user namespace may not uncover what is below them.
	if err := bind(from, to, unix.MS_REC); err != nil {
		return err
	}
	// Unlike a remount, mount_setattr reaches the mounts below and keeps flags that a user namespace may not drop.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	err := unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, &attr)
	if errors.Is(err, unix.ENOSYS) {
		err = fmt.Errorf("%w: it needs Linux 5.12", err)
	}
	if err != nil {
		return fmt.Errorf("make %s read-only: %w", from, err)
	}
	return nil
}

// dropPrivileges gives up all capabilities, for good.
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	for c := range uintptr(64) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

// under reports whether path lies in one of dirs.
func under(path string, dirs []string) bool {
	for _, d := range dirs {
		if rel, err := filepath.Rel(d, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}
