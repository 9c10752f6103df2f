// Package sandbox keeps a builder to its inputs: a CAS endpoint that answers for one Action ([Scope], [ServeCAS]), and
// on Linux a process that sees no network and no file but its own program and that endpoint's socket.
//
// Isolation is made of user, mount, pid, network, ipc and uts namespaces, a root of its own on a tmpfs, no capabilities
// and no_new_privs. It needs no privilege beyond unprivileged user namespaces; what a host does not allow is reported
// once, and the builder then runs without.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin/runner"
)

// lifelineEnv names the file descriptor whose end of file tells a builder that its host is gone.
const lifelineEnv = "PEXPRESS_LIFELINE"

// lifelineFD is the first descriptor that exec.Cmd.ExtraFiles passes on.
const lifelineFD = 3

// exitSetup is the exit status of a sandbox that could not be set up.
const exitSetup = 125

// Options say what to run and what it may see.
type Options struct {
	Command  []string
	Dir      string   // holds the sockets; the only directory shared with the host
	ReadOnly []string // further paths that may be read
	Isolate  bool
}

// Launched is a builder's process.
type Launched struct {
	opts     Options
	program  string
	lifeline *os.File
	mu       sync.Mutex
	cmd      *exec.Cmd
	stdout   io.ReadCloser
	stderr   io.ReadCloser
	exited   chan struct{}
	err      error
}

// Lifeline returns the file whose end of file means that the host is gone, nil if this process was not launched here.
func Lifeline() *os.File {
	if os.Getenv(lifelineEnv) == "" {
		return nil
	}
	return os.NewFile(lifelineFD, "lifeline")
}

// SocketDir makes a directory for sockets that only this user can enter. Its path is short: a unix socket's may have
// no more than 107 bytes.
func SocketDir() (string, error) {
	dir := os.TempDir()
	if len(dir) > 40 {
		dir = "/tmp"
	}
	return os.MkdirTemp(dir, "pexpress-")
}

// Command prepares a builder; go-plugin starts it through Runner.
func Command(opts Options) (*Launched, error) {
	program, err := exec.LookPath(opts.Command[0])
	if err != nil {
		return nil, fmt.Errorf("find the builder: %w", err)
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, err
	}
	return &Launched{opts: opts, program: program, exited: make(chan struct{})}, nil
}

// Runner is a goplugin.ClientConfig's RunnerFunc. Of the command that go-plugin hands over only the environment counts.
func (l *Launched) Runner(_ hclog.Logger, from *exec.Cmd, _ string) (runner.Runner, error) {
	end, lifeline, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	l.lifeline = lifeline
	l.cmd, err = l.command(append(from.Env, lifelineEnv+"=1"))
	if err != nil {
		return nil, errors.Join(err, end.Close(), lifeline.Close())
	}
	l.cmd.ExtraFiles = []*os.File{end}
	if l.stdout, err = l.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	l.stderr, err = l.cmd.StderrPipe()
	return attached{l}, err
}

// Start implements runner.Runner.
func (l *Launched) Start(context.Context) error {
	started := make(chan error, 1)
	go func() {
		// A parent-death signal is sent when the thread that started the process ends: this one lives as long as it does.
		lockThread()
		err := l.cmd.Start()
		l.cmd.ExtraFiles[0].Close()
		started <- err
		if err == nil {
			<-l.exited
		}
	}()
	return <-started
}

// Wait implements runner.Runner.
func (l *Launched) Wait(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.exited:
	default:
		l.err = l.cmd.Wait()
		l.lifeline.Close()
		close(l.exited)
	}
	return l.err
}

// Ran reports whether the process was started at all.
func (l *Launched) Ran() bool { return l.cmd != nil && l.cmd.Process != nil }

// SetupFailed reports whether the process ended because its isolation could not be set up.
func (l *Launched) SetupFailed() bool {
	select {
	case <-l.exited:
		return l.cmd.ProcessState != nil && l.cmd.ProcessState.ExitCode() == exitSetup
	default:
		return false
	}
}

// Kill ends the process and, isolated or not, those that it started in its group.
func (l *Launched) Kill() {
	if l.cmd != nil && l.cmd.Process != nil {
		killGroup(l.cmd.Process)
	}
}

// Stdout implements runner.Runner.
func (l *Launched) Stdout() io.ReadCloser { return l.stdout }

// Stderr implements runner.Runner.
func (l *Launched) Stderr() io.ReadCloser { return l.stderr }

// Name implements runner.Runner.
func (l *Launched) Name() string { return l.program }

// attached gives Launched the Kill method of runner.AttachedRunner.
type attached struct{ *Launched }

// Kill implements runner.Runner.
func (a attached) Kill(context.Context) error {
	a.Launched.Kill()
	return nil
}

// ID implements runner.Runner.
func (l *Launched) ID() string { return fmt.Sprint(l.cmd.Process.Pid) }

// Diagnose implements runner.Runner.
func (l *Launched) Diagnose(context.Context) string {
	return "the builder did not say the go-plugin handshake on its standard output; is it a pexpress builder?"
}

// PluginToHost implements runner.Runner: the sockets have the same path on both sides.
func (l *Launched) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin implements runner.Runner.
func (l *Launched) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
