package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/pexpress/pexpress/plugin/sandbox/within"
)

// drainTime is how long the output of a process is read on after its end. What it started and could not be ended, a
// daemon in a session of its own, may hold the pipes open for ever.
const drainTime = 500 * time.Millisecond

var errKilled = errors.New("it was ended before it began")

// Launched is a builder's process. It owns its pipes, reaps the process by itself and ends what that left behind in its
// process group, whether or not go-plugin waits for it.
type Launched struct {
	opts    Options
	program string
	env     []string

	// Set once by Start, before anything reads them.
	lifeline *os.File
	stdout   *os.File
	stderr   *os.File
	setup    *os.File // isolated: what the sandbox says if it cannot be set up

	exited  chan struct{} // closed when the process is reaped
	drained chan struct{} // closed when all that it wrote has been read
	once    sync.Once     // guards drained

	mu       sync.Mutex
	cmd      *exec.Cmd
	running  bool // started and not reaped: only then does its pid name it
	killed   bool
	startErr error
	err      error
}

// Runner is a goplugin.ClientConfig's RunnerFunc. Of the command that go-plugin hands over only the environment counts.
func (l *Launched) Runner(_ hclog.Logger, from *exec.Cmd, _ string) (runner.Runner, error) {
	l.env = append(append([]string{}, from.Env...), lifelineEnv+"=1")
	return attached{l}, nil
}

// Start implements runner.Runner.
func (l *Launched) Start(context.Context) error {
	cmd, err := l.command(l.env)
	if err != nil {
		return err
	}
	theirs, err := l.pipes(cmd)
	if err != nil {
		return err
	}
	started := make(chan error, 1)
	go func() {
		// A parent-death signal is sent when the thread that started the process ends: this one lives as long as it does.
		lockThread()
		err := l.begin(cmd)
		closeAll(theirs...)
		if err != nil {
			l.closePipes()
		}
		started <- err
		if err == nil {
			l.reap(cmd)
		}
	}()
	return <-started
}

// pipes makes the process's pipes and returns the ends that are not ours. All close on exec, so that no other process
// that this one starts meanwhile holds the lifeline.
func (l *Launched) pipes(cmd *exec.Cmd) (theirs []*os.File, err error) {
	var ours []*os.File
	pipe := func(writeOurs bool) (our, their *os.File) {
		r, w, e := os.Pipe()
		if e != nil {
			err = errors.Join(err, e)
			return nil, nil
		}
		if our, their = r, w; writeOurs {
			our, their = w, r
		}
		ours, theirs = append(ours, our), append(theirs, their)
		return our, their
	}
	var lifeline, stdout, stderr, setup *os.File
	l.lifeline, lifeline = pipe(true)
	l.stdout, stdout = pipe(false)
	l.stderr, stderr = pipe(false)
	l.setup, setup = pipe(false)
	if err != nil {
		closeAll(append(ours, theirs...)...)
		return nil, fmt.Errorf("make its pipes: %w", err)
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.ExtraFiles = []*os.File{lifeline}
	if l.opts.Isolate {
		cmd.ExtraFiles = append(cmd.ExtraFiles, setup)
	}
	return theirs, nil
}

func (l *Launched) begin(cmd *exec.Cmd) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cmd = cmd
	if l.killed {
		return errKilled
	}
	l.startErr = cmd.Start()
	l.running = l.startErr == nil
	return l.startErr
}

// reap waits for the process to end, ends what it left behind and lets readers come to an end too.
func (l *Launched) reap(cmd *exec.Cmd) {
	l.await(cmd)
	deadline := time.Now().Add(drainTime)
	_ = l.stdout.SetReadDeadline(deadline)
	_ = l.stderr.SetReadDeadline(deadline)
	l.lifeline.Close()
	close(l.exited)
}

// Wait implements runner.Runner. go-plugin calls it when it has read all output.
func (l *Launched) Wait(context.Context) error {
	<-l.exited
	l.once.Do(func() {
		l.closePipes()
		close(l.drained)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *Launched) closePipes() { closeAll(l.lifeline, l.stdout, l.stderr) }

func closeAll(files ...*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// NotIsolated says why this machine does not allow the isolation, after a start that failed; "" if it does. It must be
// called once the process has ended or the builder runs in it.
func (l *Launched) NotIsolated() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opts.Isolate && l.startErr != nil {
		if within.NotAllowed(l.startErr) {
			return l.startErr.Error()
		}
		return ""
	}
	if !l.opts.Isolate || l.setup == nil {
		return ""
	}
	// The sandbox closes its end by becoming the builder, who thus cannot write here.
	_ = l.setup.SetReadDeadline(time.Now().Add(drainTime))
	words, _ := io.ReadAll(io.LimitReader(l.setup, 4<<10))
	return string(words)
}

// Ended waits up to d for the process to end and its output to be read, and then says how it ended, such as "exit
// status 1".
func (l *Launched) Ended(d time.Duration) (state string, ok bool) {
	if !l.begun() {
		return "", false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.drained:
		return l.cmd.ProcessState.String(), true
	case <-timer.C:
		return "", false
	}
}

// Kill ends the process and those in its group; isolated, all that it started. One that has not begun never will.
func (l *Launched) Kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.killed = true
	if l.running {
		killGroup(l.cmd.Process.Pid)
	}
}

// Close ends the process, as Kill does, and returns when nothing of it is left.
func (l *Launched) Close() {
	l.Kill()
	if l.begun() {
		<-l.drained
	}
	if l.setup != nil {
		l.setup.Close()
	}
}

// begun reports whether the process was started; it may have ended since.
func (l *Launched) begun() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cmd != nil && l.cmd.Process != nil
}

// Stdout implements runner.Runner.
func (l *Launched) Stdout() io.ReadCloser { return &firstLine{f: l.stdout, left: maxHandshake} }

// Stderr implements runner.Runner.
func (l *Launched) Stderr() io.ReadCloser { return &aside{f: l.stderr, to: l.opts.Stderr} }

// Name implements runner.Runner.
func (l *Launched) Name() string { return l.program }

// ID implements runner.Runner; "" tells go-plugin that nothing was started.
func (l *Launched) ID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cmd == nil || l.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(l.cmd.Process.Pid)
}

// Diagnose implements runner.Runner.
func (l *Launched) Diagnose(context.Context) string {
	return "the builder did not say the go-plugin handshake on its standard output; is it a pexpress builder?"
}

// PluginToHost implements runner.Runner: the sockets have the same path on both sides. Only a socket in the directory
// that was given to the builder is connected to: it may know the address of others that are not meant for it.
func (l *Launched) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || !inside(addr, l.opts.Dir) {
		return "", "", fmt.Errorf("the builder listens on %.20q %.200q, not on a unix socket in $PLUGIN_UNIX_SOCKET_DIR", network, addr)
	}
	if st, err := os.Lstat(addr); err != nil || st.Mode().Type() != os.ModeSocket {
		return "", "", fmt.Errorf("the builder says that it listens on %.200q, which is not a socket", addr)
	}
	return network, addr, nil
}

// HostToPlugin implements runner.Runner.
func (l *Launched) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

// attached gives Launched the Kill method of runner.AttachedRunner.
type attached struct{ *Launched }

// Kill implements runner.Runner. go-plugin calls it at once when a builder's standard output ends without a handshake:
// one that is about to end by itself is given the time to, for its exit status tells more than the signal's.
func (a attached) Kill(context.Context) error {
	select {
	case <-a.exited:
	case <-time.After(drainTime):
	}
	a.Launched.Kill()
	return nil
}
