// Package worker runs the process of one version. Between it and the codeserver stands a shim, a small process that owns
// the version's process, reaps what that leaves behind, and ends all of it when the codeserver says so, or is gone and no
// other takes it over.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/sandbox"
)

// Spec says what to run.
type Spec struct {
	Program string
	Args    []string
	Dir     string
	Env     []string
	// Log is given each line of standard output and error, without its newline.
	Log func(line []byte)
	// Grace is how long the process has between SIGTERM and SIGKILL.
	Grace time.Duration
	// Fork has another process fork this one instead of executing Program; see ForkRequest. It may be nil.
	Fork func(ForkRequest) error
	// Sandbox is what the process is shut into; it may be nil.
	Sandbox *sandbox.Spec
	// Group is the cgroup of the process and of all that it starts. Start ends and removes it when the process has ended,
	// or could not be started. It may be nil.
	Group *limits.Group
	// Socket is where another codeserver finds the process when this one is gone; it has Within for that, from this one's
	// end on, and is told Record. The socket's directory is this user's alone. The process ends with this codeserver if
	// Socket is empty or Within is 0.
	Socket string
	Within time.Duration
	Record json.RawMessage
}

// Worker is a process that runs.
type Worker struct {
	shim    *shim
	pid     int
	started chan struct{} // closed when pid is known, or will not be
	done    chan struct{}
	stop    sync.Once
	grace   time.Duration
	group   *limits.Group
	socket  string
	err     error
}

// Start starts the process. The program that calls it must call Main first thing.
func Start(spec Spec) (*Worker, error) {
	w, err := start(spec)
	if w == nil && spec.Group != nil {
		err = errors.Join(err, spec.Group.End())
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// start returns a worker, with an error as well, as soon as there is a shim: the worker's end is that of the group.
func start(spec Spec) (*Worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	conn, lifeline, err := pair()
	if err != nil {
		return nil, err
	}
	status, statusEnd, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, conn.Close(), lifeline.Close())
	}
	out, outEnd, err := outputPipe()
	if err != nil {
		return nil, errors.Join(err, conn.Close(), lifeline.Close(), status.Close(), statusEnd.Close())
	}
	own := &shim{conn: conn, pidfd: -1}
	err = send(conn, order{Within: &spec.Within, Socket: spec.Socket, Record: spec.Record}, out)
	switch {
	case err != nil:
	case spec.Fork != nil && spec.Sandbox != nil:
		err = own.forkInto(spec, self, lifeline, statusEnd, outEnd)
	case spec.Fork != nil:
		err = fork(spec, self, lifeline, statusEnd, outEnd)
	default:
		err = own.execute(spec, self, lifeline, statusEnd, outEnd)
	}
	// The end of the shim is seen by the end of all copies of these.
	outEnd.Close()
	statusEnd.Close()
	lifeline.Close()
	if err != nil {
		return nil, errors.Join(err, conn.Close(), out.Close(), status.Close())
	}
	w := &Worker{
		shim: own, grace: spec.Grace, group: spec.Group, socket: spec.Socket,
		started: make(chan struct{}), done: make(chan struct{}),
	}
	if w.pid = own.version; w.pid != 0 { // it runs, whether or not its shim is up already
		close(w.started)
		go w.wait(out, spec.Log)
		return w, status.Close()
	}
	go w.wait(out, spec.Log)
	return w, w.readPID(status)
}

// startTimeout is how long a shim has to start the process, a thing of milliseconds. One that was stopped by what it had
// just started never says so.
var startTimeout = 30 * time.Second

// readPID waits until the shim has started the process, or has ended.
func (w *Worker) readPID(status *os.File) error {
	err := status.SetReadDeadline(time.Now().Add(startTimeout))
	if err == nil {
		w.pid, err = w.shim.begun(status)
	}
	err = errors.Join(err, status.Close())
	close(w.started)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.stop.Do(w.shim.end) // a shim that is merely late ends by itself
		w.end()
		return fmt.Errorf("the process did not start within %s", startTimeout)
	}
	w.Stop(context.Background())
	return fmt.Errorf("the process did not start: %w", w.err)
}

// wait waits for the end of the shim, which comes after that of all that it ran.
func (w *Worker) wait(out *os.File, log func([]byte)) {
	logged := make(chan struct{})
	go func() {
		readLines(out, log)
		close(logged)
	}()
	end := w.shim.wait()
	w.stop.Do(func() {})
	if errors.Is(end.err, ErrLeft) {
		out.Close()
		<-logged
		w.err = end.err
		close(w.done)
		return
	}
	if end.killed {
		w.afterShim()
	}
	err := w.endGroup(end.error())
	// A descendant that got away from the shim could hold the pipe for ever.
	select {
	case <-logged:
	case <-time.After(time.Second):
	}
	out.Close()
	<-logged
	w.err = err
	close(w.done)
}

// endGroup ends what the shim has left in the version's cgroup, and says why the version ended if that was one of its limits.
func (w *Worker) endGroup(why error) error {
	if w.group == nil {
		return why
	}
	return errors.Join(w.group.Explain(why), w.group.End())
}

// afterShim ends what a shim that was killed can no longer end: its process dies with it, the others of that process's
// group do not.
func (w *Worker) afterShim() {
	if <-w.started; w.pid > 0 {
		_ = syscall.Kill(-w.pid, syscall.SIGKILL)
	}
	if w.socket != "" {
		_ = os.Remove(w.socket)
	}
}

// PID returns the process's id.
func (w *Worker) PID() int { return w.pid }

// Done is closed when the process has ended and nothing of it is left.
func (w *Worker) Done() <-chan struct{} { return w.done }

// Err says how the process ended, once Done is closed.
func (w *Worker) Err() error { return w.err }

// stopMargin is what the shim has beyond its grace to end what is left.
const stopMargin = 3 * time.Second

// Stop asks the process to end, has it killed after its grace, and returns when nothing of it is left. When ctx ends
// before, or the shim does not do its work, as one that was stopped cannot, all is killed at once.
func (w *Worker) Stop(ctx context.Context) {
	w.stop.Do(w.shim.end)
	late := time.NewTimer(w.grace + stopMargin)
	defer late.Stop()
	select {
	case <-w.done:
		return
	case <-ctx.Done():
	case <-late.C:
	}
	w.end()
}

// Note changes what another codeserver is told in place of Spec.Record.
func (w *Worker) Note(record json.RawMessage) error { return w.shim.tell(order{Record: record}) }

// ErrLeft is how a process ended, for this codeserver, that was left to the next one.
var ErrLeft = errors.New("the process was left to the next codeserver")

// Leave leaves the process to the next codeserver, which has the time that Spec.Within says. Done is closed then, and a Stop
// has no effect any more.
func (w *Worker) Leave() {
	w.stop.Do(w.shim.leave)
	<-w.done
}

// end kills all at once.
func (w *Worker) end() {
	if shim := w.shim.pid(); shim > 1 { // else it was never known
		left := Descendants(shim)
		if w.pid > 1 { // it is not below the shim if it was forked into a sandbox
			left = append(left, Descendants(w.pid)...)
		}
		for _, p := range left {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	w.shim.kill()
	<-w.done
}
