// Package zygote keeps Python processes that have imported what versions' start-ups import from their dependencies, and
// forks versions from them. What a version imports of its own is never imported in a zygote.
//
// A forked version is set up by the same code as one that is started by itself (zygote.py), and has the same kind of
// parent: a shim of package worker, which owns it and outlives the zygote.
package zygote

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/sandbox"
	"github.com/pexpress/pexpress/codeserver/worker"
)

//go:embed zygote.py
var script []byte

// Script writes the program that starts versions into dir, where it is not there already, and returns its path.
func Script(dir string) (string, error) {
	path := filepath.Join(dir, fmt.Sprintf("zygote-%x.py", sha256.Sum256(script))[:24]+".py")
	if b, err := os.ReadFile(path); err == nil && string(b) == string(script) {
		return path, nil
	}
	err := durable.WriteFile(path, script, 0o644)
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && overwrite(path) == nil {
		err = nil
	}
	return path, err
}

// overwrite writes the program over one that is damaged: where the disk is full, its space is what there is, and who else
// writes would take that if it were removed first. Nothing is started yet.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = f.Write(script); err == nil {
		err = errors.Join(f.Truncate(int64(len(script))), f.Chmod(0o644), f.Sync())
	}
	return errors.Join(err, f.Close())
}

// Cold returns the arguments for Python that run args, "-m MODULE ..." or "SCRIPT ...", without a zygote. If learn is not
// empty, the names of the modules that are looked for are appended to that file, one a line, until it is removed.
func Cold(script, learn string, args []string) []string {
	return append([]string{script, "run", learn}, args...)
}

// Config says what a zygote is.
type Config struct {
	Python, Script string
	Env            []string
	Modules        []string // to be imported, in this order
	LeaveOut       []string // packages that are not imported, nor what imports them
	Log            io.Writer
	// Sandbox is what the zygote is shut into, so that all it can do is to fork. It may be nil; versions that have a sandbox
	// cannot be forked then. Group is its cgroup, which ends with it; it may be nil, too.
	Sandbox *sandbox.Spec
	Group   *limits.Group
}

func (c *Config) groups() []string {
	if c.Group == nil {
		return nil
	}
	return c.Group.Dirs()
}

func (c *Config) endGroup() error {
	if c.Group == nil {
		return nil
	}
	return c.Group.End()
}

// Zygote is a process to fork versions from.
type Zygote struct {
	// Modules are those that were imported, the interpreter's own included; Failed those that could not be, with why.
	Modules []string
	Failed  [][2]string

	mu      sync.Mutex // one request at a time
	control int
	done    chan struct{} // closed when it has ended
	cleared chan struct{} // closed when nothing is left of its group either
	process *os.Process
	user    int
	copies  atomic.Bool // it was told what to copy ahead
	group   *limits.Group
	charged int64 // to the group, when the modules were imported
}

// titleRoom is how long what ps shows of a version may be beyond what it shows of a zygote; see set_title.
const titleRoom = 1024

const (
	// preloadTimeout is how long a zygote has to import its modules.
	preloadTimeout = 2 * time.Minute
	// forkTimeout is how long it has to fork, a thing of milliseconds. One that does not is ended.
	forkTimeout = 10 * time.Second
)

// maxAnswer is how much a zygote may say of what it has imported: 20,000 modules, each with the error of its import.
const maxAnswer = 16 << 20

// errGone says that the zygote has ended.
var errGone = errors.New("the zygote has ended")

// Start starts a zygote and returns when it can fork. It ends with this process, too.
func Start(ctx context.Context, c Config) (*Zygote, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start a zygote: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "zygote")
	cmd := exec.Command(c.Python, c.Script, "serve", strings.Repeat(" ", titleRoom))
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.Env, "/", c.Log, c.Log
	cmd.ExtraFiles = []*os.File{theirs}
	// One that imports something, or is stopped, does not notice the end of its connection.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	user := os.Getuid()
	if c.Sandbox != nil {
		user = c.Sandbox.User
		started, err := sandbox.Wrap(cmd, c.Sandbox, c.groups(), 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start a zygote: %w", err), theirs.Close(), unix.Close(pair[0]), c.endGroup())
		}
		defer started()
	}
	z := &Zygote{control: pair[0], done: make(chan struct{}), cleared: make(chan struct{}), user: user, group: c.Group}
	err = z.run(cmd)
	theirs.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a zygote: %w", err), unix.Close(pair[0]), c.endGroup())
	}
	ctx, cancel := context.WithTimeout(ctx, preloadTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err = z.preload(c.Modules, c.LeaveOut)
	if stop(); err == nil {
		timeout := unix.NsecToTimeval(forkTimeout.Nanoseconds())
		err = os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(z.control, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		z.Close()
		return nil, fmt.Errorf("start a zygote: %w", err)
	}
	if z.group != nil {
		z.charged = z.group.Memory()
	}
	return z, nil
}

// run starts the process, and sees to its end. It ends with the thread that has started it, too: that waits for it.
func (z *Zygote) run(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		z.process = cmd.Process
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait()
		close(z.done) // first: a version that it was just forking dies of the zygote's end if it dies with the group
		if z.group != nil {
			_ = z.group.End() // versions that it forked have groups of their own
		}
		close(z.cleared)
	}()
	return <-started
}

// full reports whether so much has been added to the memory of the zygote's group that little is left of its share: what
// versions have copied ahead counts there as long as they run.
func (z *Zygote) full() bool {
	if z.group == nil || z.group.Limits().Memory == 0 {
		return false
	}
	return z.group.Memory()-z.charged > (z.group.Limits().Memory-z.charged)/2
}

func (z *Zygote) preload(modules, leaveOut []string) error {
	// In memory, that of the zygote's group: whatever was imported can write to it, for as long as it likes.
	fd, err := unix.MemfdCreate("answer", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	answer := os.NewFile(uintptr(fd), "answer")
	defer answer.Close()
	request := map[string]any{"preload": append([]string{}, modules...), "leave_out": append([]string{}, leaveOut...)}
	if err := z.ask(preloadRequest, request, answer); err != nil {
		return err
	}
	var got struct {
		Failed  [][2]string
		Modules []string
	}
	if _, err := answer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := json.NewDecoder(io.LimitReader(answer, maxAnswer)).Decode(&got); err != nil {
		return fmt.Errorf("its answer, of which up to %d bytes are read: %w", maxAnswer, err)
	}
	z.Failed, z.Modules = got.Failed, got.Modules
	return nil
}

// Kinds of requests. The zygote reads only what it is to preload: what a version is told, secrets among it, only the
// version's own process has ever had in its memory.
const (
	preloadRequest = 'p'
	copyRequest    = 'c' // what versions are to have copies of
	forkRequest    = 'f'
	sandboxRequest = 's' // a fork into a sandbox
)

// ask sends a request and waits for the answer. The request itself is in a file, since it can be larger than a message.
func (z *Zygote) ask(kind byte, request any, files ...*os.File) error {
	fd, err := unix.MemfdCreate("request", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	body := os.NewFile(uintptr(fd), "request")
	defer body.Close()
	if err := json.NewEncoder(body).Encode(request); err != nil {
		return err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return err
	}
	fds := []int{fd}
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.control < 0 {
		return errGone
	}
	if err := unix.Sendmsg(z.control, []byte{kind}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != nil {
		_ = z.process.Kill()
		<-z.done
		return fmt.Errorf("%w: %w", errGone, err)
	}
	runtime.KeepAlive(files)
	for {
		n, err := unix.Read(z.control, make([]byte, 1))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 {
			_ = z.process.Kill() // what it says later would be taken for the next answer
			<-z.done
			return errors.Join(errGone, err)
		}
		return nil
	}
}

// Fork has the zygote fork a version; it is for worker.Spec.Fork.
func (z *Zygote) Fork(r worker.ForkRequest) error { return z.fork(r, "") }

// Learning is Fork for a version that writes down in a file what it imports, if that is not empty; see Cold.
func (z *Zygote) Learning(file string) func(worker.ForkRequest) error {
	return func(r worker.ForkRequest) error { return z.fork(r, file) }
}

func (z *Zygote) fork(r worker.ForkRequest, learn string) error {
	env := map[string]string{}
	for _, v := range r.Env {
		for i := range v {
			if v[i] == '=' {
				env[v[:i]] = v[i+1:]
				break
			}
		}
	}
	if r.Admission != nil {
		*r.Parent = sandbox.Parent{PID: z.process.Pid, User: z.user}
		return z.ask(sandboxRequest, map[string]any{"args": r.Args, "env": env, "dir": r.Dir, "learn": learn, "open_files": r.Confine.OpenFiles}, r.Admission, r.Keeper, r.Out)
	}
	return z.ask(forkRequest, map[string]any{
		"args": r.Args, "env": env, "dir": r.Dir, "shim": r.Shim, "shim_argument": r.ShimArgument, "grace": r.Grace.Nanoseconds(),
		"learn": learn, "confine": r.Confine, "shim_env": r.Confine.Variables(),
	}, r.Lifeline, r.Status, r.Out)
}

// PID returns the zygote's process id.
func (z *Zygote) PID() int { return z.process.Pid }

// Done is closed when the zygote has ended.
func (z *Zygote) Done() <-chan struct{} { return z.done }

// Close ends the zygote. Versions that it forked go on.
func (z *Zygote) Close() {
	_ = z.process.Kill()
	<-z.cleared
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.control >= 0 {
		_ = unix.Close(z.control)
		z.control = -1
	}
}
