package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/sandbox"
)

// shim is a version's shim as the codeserver sees it: a child of this process, or, if cmd is nil, of the process that
// has forked it or of a codeserver before.
type shim struct {
	conn *net.UnixConn
	cmd  *exec.Cmd
	left atomic.Bool
	// version is the process that was forked before the shim was started, 0 if none was.
	version int

	mu     sync.Mutex
	number int // its pid
	pidfd  int // -1 when the shim has ended, or is not known
}

// ending says how a shim ended, and with it the version's process.
type ending struct {
	code   int   // of the version's process, or 128 and the signal's number
	killed bool  // the shim was, or left without a word, and may have left something behind
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

// execute starts a shim as a child of this process.
func (s *shim) execute(spec Spec, self string, lifeline, status, out *os.File) error {
	c := confinement(spec)
	told := shimSpec{
		Program: spec.Program, Args: spec.Args, Dir: spec.Dir, Env: spec.Env, Grace: spec.Grace, Confine: c, Sandbox: spec.Sandbox,
	}
	if spec.Group != nil {
		told.Pids = spec.Group.Limits().Pids
	}
	input, err := json.Marshal(told)
	if err != nil {
		return err
	}
	return s.run(self, input, c, lifeline, status, nil, nil, out)
}

// run executes a shim. keeper and version are those of one that was forked before, else nil.
func (s *shim) run(self string, input []byte, c Confinement, lifeline, status, keeper, version, out *os.File) error {
	cmd := exec.Command(self, shimArg)
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{lifeline, status}
	if keeper != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, keeper, version)
	}
	cmd.Env = c.Variables()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd = cmd
	return cmd.Start()
}

// ForkRequest is what a process that forks versions is to do: fork one that becomes the version, whose parent, a fork as
// well, executes Shim with the arguments ShimArgument, the version's pid and Grace in nanoseconds, and with Lifeline and
// Status as descriptors 3 and 4, and with Confine's variables. Both write to Out. The version is confined before it does
// anything else.
//
// With Admission, of package sandbox, on which the version asks to be admitted, there is no Shim, Lifeline or Status: the
// parent is the keeper, which says on Keeper how the version has ended, and ends when nobody is at its other end. Parent is
// set to who forks.
type ForkRequest struct {
	Args, Env             []string
	Dir                   string
	Shim, ShimArgument    string
	Grace                 time.Duration
	Confine               Confinement
	Lifeline, Status, Out *os.File
	Admission, Keeper     *os.File
	Parent                *sandbox.Parent
}

// forkedArg is the first argument of a shim whose version was forked before it.
const forkedArg = "pexpress-worker-forked"

func fork(spec Spec, self string, lifeline, status, out *os.File) error {
	return spec.Fork(ForkRequest{
		Args: spec.Args, Env: spec.Env, Dir: spec.Dir, Shim: self, ShimArgument: forkedArg, Grace: spec.Grace,
		Confine: confinement(spec), Lifeline: lifeline, Status: status, Out: out,
	})
}

// begun waits until the shim says that the version's process runs, and returns that one's pid.
func (s *shim) begun(status *os.File) (pid int, err error) {
	line, err := bufio.NewReader(status).ReadString('\n')
	if err != nil {
		return 0, err
	}
	number := 0
	if _, err := fmt.Sscanf(line, "%d %d", &pid, &number); err != nil {
		return 0, err
	}
	return pid, s.open(number)
}

// open makes sure of which process the shim is. One that has ended already is none, and its pid may be another's by now:
// only if it is still at the other end of the connection was it the one that was found.
func (s *shim) open(number int) error {
	if s.cmd != nil {
		return nil
	}
	fd, err := unix.PidfdOpen(number, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	s.mu.Lock() // so that wait comes before, or finds the descriptor
	defer s.mu.Unlock()
	alive := false
	conn, err := s.conn.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			_, err := unix.Poll(poll, 0)
			alive = err == nil && poll[0].Revents&unix.POLLHUP == 0
		})
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil // wait has seen its end already
	}
	if !alive {
		return errors.Join(err, unix.Close(fd))
	}
	s.number, s.pidfd = number, fd
	return err
}

// wait returns when the shim has ended, or was left.
func (s *shim) wait() ending {
	end := ending{killed: true}
	for {
		var n notice
		file, err := receive(s.conn, &n)
		if file != nil {
			file.Close()
		}
		if err != nil {
			break
		}
		if n.Ended != nil {
			end = ending{code: *n.Ended}
		}
	}
	s.mu.Lock()
	s.conn.Close()
	pidfd := s.pidfd
	s.pidfd = -1
	s.mu.Unlock()
	if s.left.Load() {
		go s.reap(pidfd)
		return ending{err: ErrLeft}
	}
	if s.cmd == nil {
		s.reap(pidfd)
		return end
	}
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if end.killed && (err == nil || errors.As(err, &exit)) {
		code := s.cmd.ProcessState.ExitCode()
		return ending{code: code, killed: code < 0}
	}
	return end
}

// tellTimeout is how long a shim has to take an order. One that was stopped takes many before there is no room for more.
const tellTimeout = time.Second

// tell gives the shim an order.
func (s *shim) tell(o order) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(tellTimeout)); err != nil {
		return err
	}
	return send(s.conn, o, nil)
}

// reap waits for a shim whose parent this process is. That can be so also of one that a codeserver before has started, if
// this one was executed in its place.
func (s *shim) reap(pidfd int) {
	if s.cmd != nil {
		_ = s.cmd.Wait()
	}
	if pidfd < 0 {
		return
	}
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED, nil)
		if !errors.Is(err, unix.EINTR) {
			break // with ECHILD, mostly
		}
	}
	unix.Close(pidfd)
}

// end asks the shim to end the version.
func (s *shim) end() { _ = s.tell(order{End: true}) }

// leave ends the connection, and no more.
func (s *shim) leave() {
	s.left.Store(true)
	s.conn.Close()
}

func (s *shim) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidfd >= 0 {
		_ = unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
	}
}

// pid returns the shim's process id, 0 if it is not known.
func (s *shim) pid() int {
	if s.cmd != nil {
		return s.cmd.Process.Pid
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidfd < 0 {
		return 0
	}
	return s.number
}
