// Package worker runs the process of one version. Between it and the codeserver stands a shim, a small process that owns
// the version's process, reaps what that leaves behind, and ends all of it when the codeserver says so or is gone.
package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
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
}

// Worker is a process that runs.
type Worker struct {
	shim     shim
	lifeline *os.File
	pid      int
	started  chan struct{} // closed when pid is known, or will not be
	done     chan struct{}
	stop     sync.Once
	grace    time.Duration
	err      error
}

// maxLine is where a log line is cut.
const maxLine = 64 << 10

// Start starts the process. The program that calls it must call Main first thing.
func Start(spec Spec) (*Worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	end, lifeline, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer end.Close()
	status, statusEnd, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, lifeline.Close())
	}
	out, outEnd, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, lifeline.Close(), status.Close(), statusEnd.Close())
	}
	var own shim
	if spec.Fork != nil {
		own, err = fork(spec, self, end, statusEnd, outEnd)
	} else {
		own, err = execute(spec, self, end, statusEnd, outEnd)
	}
	outEnd.Close()
	statusEnd.Close()
	if err != nil {
		return nil, errors.Join(err, lifeline.Close(), out.Close(), status.Close())
	}
	w := &Worker{shim: own, lifeline: lifeline, grace: spec.Grace, started: make(chan struct{}), done: make(chan struct{})}
	go w.wait(out, spec.Log)
	if err := w.readPID(status); err != nil {
		return nil, err
	}
	return w, nil
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
	close(w.started)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.stop.Do(func() { w.lifeline.Close() }) // a shim that is merely late ends by itself
		w.end()
		return fmt.Errorf("the process did not start within %s", startTimeout)
	}
	w.Stop(context.Background())
	return fmt.Errorf("the process did not start: %w", w.err)
}

// readLines hands on lines, long ones in pieces.
func readLines(r io.Reader, log func([]byte)) {
	b := bufio.NewReaderSize(r, maxLine)
	for {
		line, _, err := b.ReadLine()
		if err != nil {
			return
		}
		log(line)
	}
}

// wait waits for the end of the shim, which comes after that of all that it ran.
func (w *Worker) wait(out *os.File, log func([]byte)) {
	logged := make(chan struct{})
	go func() {
		readLines(out, log)
		close(logged)
	}()
	end := w.shim.wait()
	w.stop.Do(func() { w.lifeline.Close() })
	if end.killed {
		w.afterShim()
	}
	// A descendant that got away from the shim could hold the pipe for ever.
	select {
	case <-logged:
	case <-time.After(time.Second):
	}
	out.Close()
	<-logged
	w.err = end.error()
	close(w.done)
}

// afterShim ends what a shim that was killed can no longer end: its process dies with it, the others of that process's
// group do not.
func (w *Worker) afterShim() {
	if <-w.started; w.pid > 0 {
		_ = syscall.Kill(-w.pid, syscall.SIGKILL)
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
	w.stop.Do(func() { w.lifeline.Close() })
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

// end kills all at once.
func (w *Worker) end() {
	if shim := w.shim.pid(); shim > 1 { // else it was never known
		for _, p := range Descendants(shim) {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	w.shim.kill()
	<-w.done
}
