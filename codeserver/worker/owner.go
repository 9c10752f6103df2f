package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shim is a version's shim as the codeserver sees it.
type shim interface {
	// begun waits until the shim says that the version's process runs, and returns that one's pid. It owns status.
	begun(status *os.File) (int, error)
	// wait returns when the shim has ended.
	wait() ending
	kill()
	pid() int // 0 if it is not known
}

// ending says how a shim ended, and with it the version's process.
type ending struct {
	code   int   // of the version's process, or 128 and the signal's number
	killed bool  // the shim was, and may have left something behind
	err    error // nothing else is known
}

// error says how the process ended.
func (e ending) error() error {
	if e.err != nil {
		return e.err
	}
	if e.killed {
		return errors.New("the process that watches over it ended: it was killed")
	}
	if n := e.code - 128; n > 0 && n < 65 {
		return fmt.Errorf("the process was ended by a signal: %s", syscall.Signal(n))
	}
	return fmt.Errorf("the process ended with status %d", e.code)
}

// executed is a shim that this process has started.
type executed struct{ cmd *exec.Cmd }

func execute(spec Spec, self string, lifeline, status, out *os.File) (shim, error) {
	input, err := json.Marshal(shimSpec{spec.Program, spec.Args, spec.Dir, spec.Env, spec.Grace})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, shimArg)
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{lifeline, status}
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &executed{cmd}, cmd.Start()
}

func (x *executed) begun(status *os.File) (int, error) {
	defer status.Close()
	line, err := bufio.NewReader(status).ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

func (x *executed) wait() ending {
	err := x.cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return ending{}
	case !errors.As(err, &exit):
		return ending{err: err}
	}
	return ending{code: exit.ExitCode(), killed: exit.ExitCode() < 0}
}

func (x *executed) kill()    { _ = x.cmd.Process.Kill() }
func (x *executed) pid() int { return x.cmd.Process.Pid }

// ForkRequest is what a process that forks versions is to do: fork one that becomes the version, whose parent, a fork as
// well, executes Shim with the arguments ShimArgument, the version's pid and Grace in nanoseconds, and with Lifeline and
// Status as descriptors 3 and 4. Both write to Out.
type ForkRequest struct {
	Args, Env             []string
	Dir                   string
	Shim, ShimArgument    string
	Grace                 time.Duration
	Lifeline, Status, Out *os.File
}

// forkedArg is the first argument of a shim whose version was forked before it.
const forkedArg = "pexpress-worker-forked"

// forked is a shim that is another process's child. What it says on its status pipe is all that is known of it: the
// version's pid and its own, and, when the version has ended, the exit status. The pipe's end is the shim's.
type forked struct {
	known chan struct{} // closed when the fields below are set, or won't be
	shim  int

	mu    sync.Mutex
	pidfd int // -1 when the shim has ended, or is not known
	lines *bufio.Reader
	file  *os.File
}

func fork(spec Spec, self string, lifeline, status, out *os.File) (shim, error) {
	err := spec.Fork(ForkRequest{
		Args: spec.Args, Env: spec.Env, Dir: spec.Dir, Shim: self, ShimArgument: forkedArg, Grace: spec.Grace,
		Lifeline: lifeline, Status: status, Out: out,
	})
	return &forked{known: make(chan struct{}), pidfd: -1}, err
}

func (f *forked) begun(status *os.File) (pid int, err error) {
	defer close(f.known)
	f.file, f.lines = status, bufio.NewReader(status)
	line, err := f.lines.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(line, "%d %d", &pid, &f.shim)
	}
	if err == nil {
		err = f.open()
	}
	return pid, errors.Join(err, status.SetReadDeadline(time.Time{}))
}

// open makes sure of which process the shim is. One that has ended already is none, and its pid may be another's by now:
// only if it still has the status pipe open was it the one that was found.
func (f *forked) open() error {
	fd, err := unix.PidfdOpen(f.shim, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	conn, err := f.file.SyscallConn()
	alive := false
	if err == nil {
		err = conn.Control(func(status uintptr) {
			poll := []unix.PollFd{{Fd: int32(status), Events: unix.POLLIN}}
			_, err := unix.Poll(poll, 0)
			alive = err == nil && poll[0].Revents&unix.POLLHUP == 0
		})
	}
	if !alive {
		return errors.Join(err, unix.Close(fd))
	}
	f.pidfd = fd
	return err
}

func (f *forked) wait() ending {
	<-f.known
	defer f.file.Close()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.pidfd >= 0 {
			unix.Close(f.pidfd)
		}
		f.pidfd = -1
	}()
	line, err := f.lines.ReadString('\n')
	end := ending{killed: true}
	if err == nil {
		if _, err := fmt.Sscanf(line, "ended %d", &end.code); err == nil {
			end.killed = false
		}
	}
	_, _ = f.lines.ReadString(0) // until the shim has ended
	return end
}

func (f *forked) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pidfd >= 0 {
		_ = unix.PidfdSendSignal(f.pidfd, unix.SIGKILL, nil, 0)
	}
}

func (f *forked) pid() int {
	<-f.known
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pidfd < 0 {
		return 0
	}
	return f.shim
}
