// Package worker runs the process of one version. Between it and the codeserver stands a shim, a small process that owns
// the version's process, reaps what that leaves behind, and ends all of it when the codeserver says so or is gone.
package worker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
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
}

// Worker is a process that runs.
type Worker struct {
	cmd      *exec.Cmd
	lifeline *os.File
	pid      int
	done     chan struct{}
	stop     sync.Once
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
	input, err := json.Marshal(shimSpec{spec.Program, spec.Args, spec.Dir, spec.Env, spec.Grace})
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
	defer status.Close()
	out, outEnd, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, lifeline.Close(), statusEnd.Close())
	}
	cmd := exec.Command(self, shimArg)
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stdout, cmd.Stderr = outEnd, outEnd
	cmd.ExtraFiles = []*os.File{end, statusEnd}
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	outEnd.Close()
	statusEnd.Close()
	if err != nil {
		return nil, errors.Join(err, lifeline.Close(), out.Close())
	}
	w := &Worker{cmd: cmd, lifeline: lifeline, done: make(chan struct{})}
	logged := make(chan struct{})
	go func() {
		readLines(out, spec.Log)
		out.Close()
		close(logged)
	}()
	go w.wait(logged)
	return w, w.readPID(status)
}

// readPID waits until the shim has started the process, or has ended.
func (w *Worker) readPID(status io.Reader) error {
	line, err := bufio.NewReader(status).ReadString('\n')
	if err == nil {
		w.pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		<-w.done
		return fmt.Errorf("the process did not start: %w", w.err)
	}
	return nil
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

func (w *Worker) wait(logged <-chan struct{}) {
	err := w.cmd.Wait()
	// A descendant that got away from the shim could hold the pipe for ever.
	select {
	case <-logged:
	case <-time.After(time.Second):
	}
	if err == nil {
		err = errors.New("the process ended with status 0")
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("the process ended with status %d", exit.ExitCode())
		if n := exit.ExitCode() - 128; n > 0 && n < 65 {
			err = fmt.Errorf("the process was ended by a signal: %s", syscall.Signal(n))
		}
	}
	w.err = err
	close(w.done)
}

// PID returns the process's id.
func (w *Worker) PID() int { return w.pid }

// Done is closed when the process has ended and nothing of it is left.
func (w *Worker) Done() <-chan struct{} { return w.done }

// Err says how the process ended, once Done is closed.
func (w *Worker) Err() error { return w.err }

// Stop asks the process to end, has it killed after its grace, and returns when nothing of it is left. When ctx ends
// before, all is killed at once.
func (w *Worker) Stop(ctx context.Context) {
	w.stop.Do(func() { w.lifeline.Close() })
	select {
	case <-w.done:
	case <-ctx.Done():
		for _, p := range Descendants(w.cmd.Process.Pid) {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		<-w.done
	}
}
