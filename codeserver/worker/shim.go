package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/sandbox"
)

// shimArg is the first argument of the process that owns a version's process.
const shimArg = "pexpress-worker"

// exitShim is the shim's exit status when it could not do its work; what it says is in the log.
const exitShim = 125

// shimSpec is what a shim is told on its standard input.
type shimSpec struct {
	Program string
	Args    []string
	Dir     string
	Env     []string
	Grace   time.Duration
	Confine Confinement
	Sandbox *sandbox.Spec // nil if it is not shut into one
	Pids    int64         // how many processes and threads its cgroup may have; 0 leaves it without a limit
	Forked  *sandboxed    // not nil if the process runs already
}

// Main must be the first thing that main does in a program that starts workers: started again as a worker's shim, it
// runs the version's process and exits when that has ended. In any other process it returns at once.
//
// The shim is what makes sure that nothing of a version is left: it is the reaper of all that the version's process
// starts, and it ends them when told to. The end of its lifeline, which comes also when the codeserver is killed, tells
// it to wait for another codeserver for a while, and then to end them.
func Main() {
	sandbox.Main()
	limits.Main()
	var code int
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == shimArg:
		code, err = runShim()
	case len(os.Args) == 4 && os.Args[1] == forkedArg:
		code, err = adopt(os.Args[2], os.Args[3])
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "codeserver worker:", err)
		code = exitShim
	}
	os.Exit(code)
}

// Descriptors that exec.Cmd.ExtraFiles passes on.
const (
	lifelineFD = 3
	statusFD   = 4
)

// become makes this process a shim: a reaper that passes on no descriptor and no ignored signal.
func become() error {
	// Notified signals are at their default again in what is started below, also those that this process inherited as
	// ignored, as a shell's background jobs do: a server that ignores SIGTERM could not be ended in good order.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	// Also those that the codeserver itself was started with: nothing that is open here is a version's business.
	if unix.CloseRange(lifelineFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) != nil {
		unix.CloseOnExec(lifelineFD)
		unix.CloseOnExec(statusFD)
	}
	return nil
}

// adopt watches over a version that the process forked which has executed this program since.
func adopt(version, grace string) (int, error) {
	if err := become(); err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(version)
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(grace, 10, 64)
	if err != nil {
		return 0, err
	}
	t, err := tie()
	if err != nil {
		return 0, err
	}
	return supervise(pid, os.Getpid(), time.Duration(ns), t)
}

func runShim() (int, error) {
	if err := become(); err != nil {
		return 0, err
	}
	var spec shimSpec
	if err := json.NewDecoder(os.Stdin).Decode(&spec); err != nil {
		return 0, fmt.Errorf("read what to run: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	t, err := tie()
	if err != nil {
		return 0, err
	}
	if f := spec.Forked; f != nil {
		return supervise(f.PID, f.Keeper, spec.Grace, t)
	}
	runtime.LockOSThread() // the parent-death signal is tied to the thread that starts the process
	cmd := &exec.Cmd{
		Path: spec.Program, Args: append([]string{spec.Program}, spec.Args...), Dir: spec.Dir, Env: spec.Env,
		Stdin: null, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	started := func() {}
	if spec.Sandbox != nil {
		if started, err = sandbox.Wrap(cmd, spec.Sandbox, spec.Confine.Groups, spec.Pids); err != nil {
			return 0, errors.Join(err, t.cut())
		}
		spec.Confine.Groups = nil // it enters them by itself
	}
	err = spec.Confine.start(cmd)
	started()
	if err != nil {
		return 0, errors.Join(err, t.cut())
	}
	return supervise(cmd.Process.Pid, os.Getpid(), spec.Grace, t)
}

// supervise says what it watches over, reaps until the main process has ended, ends it when the codeserver says so or is
// gone for too long, and leaves nothing behind. What the version starts is below the process top, its parent.
func supervise(pid, top int, grace time.Duration, t *tether) (int, error) {
	t.hello.Protocol, t.hello.PID, t.hello.Shim, t.hello.Grace = protocol, pid, os.Getpid(), grace
	status := os.NewFile(statusFD, "status")
	fmt.Fprintf(status, "%d %d\n", pid, os.Getpid())
	status.Close()
	asked := make(chan struct{})
	go func() {
		t.hold()
		close(asked)
	}()
	ended := make(chan syscall.WaitStatus, 1)
	if top == os.Getpid() {
		go reap(pid, ended)
	} else if err := watchForked(ended); err != nil {
		return 0, errors.Join(err, t.cut())
	}
	select {
	case st := <-ended:
		killBelow(top)
		told := t.report(exitStatus(st), asked)
		err := t.cut()
		if !told {
			err = errors.Join(err, endGroup(t.gone()))
		}
		return exitStatus(st), err
	case <-asked:
	}
	if err := t.cut(); err != nil {
		fmt.Fprintln(os.Stderr, "codeserver worker:", err)
	}
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	var st syscall.WaitStatus
	select {
	case st = <-ended:
	case <-time.After(grace):
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		st = <-ended
	}
	killBelow(top)
	t.say(exitStatus(st))
	return exitStatus(st), endGroup(t.gone())
}

// reap waits for children, those inherited from processes that ended included.
func reap(pid int, ended chan<- syscall.WaitStatus) {
	for {
		var st syscall.WaitStatus
		got, err := syscall.Wait4(-1, &st, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if got == pid {
			ended <- st
		}
		if err == syscall.ECHILD {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// exitStatus returns what a shell would: the exit status, or 128 and the signal's number.
func exitStatus(st syscall.WaitStatus) int {
	if st.Signaled() {
		return 128 + int(st.Signal())
	}
	return st.ExitStatus()
}

// killBelow ends all that the version has started, wherever it has moved itself. Each round finds what the one before has
// orphaned.
func killBelow(top int) {
	for range 1000 {
		left := Descendants(top)
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
