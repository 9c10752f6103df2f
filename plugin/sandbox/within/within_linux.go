// Package within is the inside of a sandbox before the builder is there: the program of the host, started again, sets up the
// isolation and becomes the builder.
//
// It does so while packages are initialised, before the protocol buffers, the clients of clouds and the command line of the
// program are made ready, for nothing: that is most of what such a start costs. Of the packages whose imports are initialised
// the one whose path sorts first is next (the Go specification, "Package initialization"), so that this one must import next
// to nothing: with fmt, golang.org/x/sys/unix or even strings most others come before it.
package within

import (
	"errors"
	"os"
	"runtime"
	"syscall"
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

// Setup is what a process that becomes a sandbox is told.
type Setup struct {
	Program  string
	Args     []string
	Dir      string
	ReadOnly []string
}

// Arguments returns what the process is started with, after its own name.
func (s Setup) Arguments() []string {
	args := append([]string{Arg, s.Program, s.Dir}, s.ReadOnly...)
	return append(append(args, endOfPaths), s.Args...)
}

// parse is the inverse of Arguments.
func parse(args []string) (Setup, error) {
	for i, arg := range args {
		if arg == endOfPaths && i >= 3 {
			return Setup{Program: args[1], Dir: args[2], ReadOnly: args[3:i], Args: args[i+1:]}, nil
		}
	}
	return Setup{}, errors.New("its arguments are not those of a sandbox")
}

// endOfPaths stands between the paths, all of which are absolute, and the builder's command.
const endOfPaths = "--"

func init() {
	if len(os.Args) < 2 || os.Args[1] != Arg {
		return
	}
	// Capabilities, no_new_privs and the parent-death signal are a thread's own: what gives them up must be the thread
	// that becomes the builder.
	runtime.LockOSThread()
	// The builder must not be able to write here: what is read from it decides whether it is run without isolation.
	syscall.CloseOnExec(SetupFD)
	err := becomeBuilder(os.Args[1:])
	if !errors.As(err, new(*execError)) && NotAllowed(err) {
		_, _ = os.NewFile(SetupFD, "setup").WriteString(err.Error())
	}
	_, _ = os.Stderr.WriteString("sandbox: " + err.Error() + "\n")
	os.Exit(exitSetup)
}

// NotAllowed reports whether an error is this machine's refusal of isolation. Any other, such as too many open files or
// a path that is not there, must not cost the isolation: it is an error.
func NotAllowed(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EPERM, syscall.EACCES, syscall.ENOSYS, syscall.EINVAL, syscall.ENOSPC, syscall.EUSERS, syscall.ENODEV, syscall.EOPNOTSUPP,
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
	if errors.Is(e.err, syscall.ENOENT) {
		hint = " (its interpreter or loader is not among what it may read in there)"
	}
	return "start " + e.program + ": " + e.err.Error() + hint
}

func (e *execError) Unwrap() error { return e.err }

// failed says what could not be done, as fmt.Errorf does.
func failed(what string, err error) error { return &stepError{what, err} }

type stepError struct {
	what string
	err  error
}

func (e *stepError) Error() string { return e.what + ": " + e.err.Error() }

func (e *stepError) Unwrap() error { return e.err }

func becomeBuilder(args []string) error {
	s, err := parse(args)
	if err != nil {
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
	if err := prctl(prSetPdeathsig, uintptr(syscall.SIGKILL)); err != nil {
		return failed("parent-death signal", err)
	}
	if readable(LifelineFD) {
		return errors.New("the host is gone")
	}
	return &execError{s.Program, syscall.Exec(program, s.Args, os.Environ())}
}

// newRoot makes a root file system that holds the program, the sockets and what else may be read, and enters it.
func newRoot(s Setup) (program string, err error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return "", failed("make mounts private", err)
	}
	root := s.Dir + "/root"
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", err
	}
	if err := syscall.Mount("tmpfs", root, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "size=256m,mode=0755"); err != nil {
		return "", failed("mount a root", err)
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
	if err := syscall.PivotRoot(root, old); err != nil {
		return "", failed("enter the root", err)
	}
	if err := os.Chdir("/"); err != nil {
		return "", err
	}
	if err := syscall.Unmount("/.old", syscall.MNT_DETACH); err != nil {
		return "", failed("leave the host's root", err)
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
	} else if err = os.MkdirAll(parent(to), 0o755); err == nil {
		err = touch(to)
	}
	if err != nil {
		return err
	}
	if err := syscall.Mount(from, to, "", syscall.MS_BIND|flags, ""); err != nil {
		return failed("bind "+from, err)
	}
	return nil
}

// parent returns the directory of an absolute path.
func parent(path string) string {
	end := len(path) - 1
	for path[end] != '/' {
		end--
	}
	return path[:end]
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
	if err := bind(from, to, syscall.MS_REC); err != nil {
		return err
	}
	// Unlike a remount, mount_setattr reaches the mounts below and keeps flags that a user namespace may not drop.
	err := setMountAttributes(to, mountAttrRdonly|mountAttrNosuid|mountAttrNodev)
	if errors.Is(err, syscall.ENOSYS) {
		err = failed("it needs Linux 5.12", err)
	}
	if err != nil {
		return failed("make "+from+" read-only", err)
	}
	return nil
}

// dropPrivileges gives up all capabilities, for good.
func dropPrivileges() error {
	if err := prctl(prSetNoNewPrivs, 1); err != nil {
		return failed("no_new_privs", err)
	}
	for c := range uintptr(64) {
		if err := prctl(prCapbsetDrop, c); err != nil && !errors.Is(err, syscall.EINVAL) {
			return failed("drop a capability from the bounding set", err)
		}
	}
	if err := dropCapabilities(); err != nil {
		return failed("drop capabilities", err)
	}
	return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}

// under reports whether path lies in one of dirs. All are absolute and clean.
func under(path string, dirs []string) bool {
	for _, d := range dirs {
		if n := len(d); path == d || d == "/" || len(path) > n && path[:n] == d && path[n] == '/' {
			return true
		}
	}
	return false
}
