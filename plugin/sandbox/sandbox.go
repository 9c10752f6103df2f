// Package sandbox keeps a builder to its inputs: a CAS endpoint that answers for one Action ([Scope], [ServeCAS]), and
// on Linux a process that sees no network and no file but its own program and that endpoint's socket.
//
// Isolation is made of user, mount, pid, network, ipc and uts namespaces, a root of its own on a tmpfs, no capabilities
// and no_new_privs. It needs no privilege beyond unprivileged user namespaces. Whether a host allows them is said by
// [Launched.NotIsolated], before the builder has run a single instruction: nothing that a builder does can make its
// host believe that it must be run without.
package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/pexpress/pexpress/plugin/sandbox/within"
)

// lifelineEnv says that a process has a lifeline.
const lifelineEnv = "PEXPRESS_LIFELINE"

// initCalled is whether this program's main has called InitMain.
var initCalled atomic.Bool

// InitMain must be the first thing that main does in a program that starts sandboxed builders: it says that this program
// may be started again as the inside of a sandbox, which package within has become before main.
func InitMain() { initCalled.Store(true) }

// Options say what to run and what it may see.
type Options struct {
	Command  []string
	Dir      string   // holds the sockets; the only directory shared with the host
	ReadOnly []string // further paths that may be read
	Isolate  bool
	Stderr   io.Writer // gets what the builder writes to its standard error
}

// Command prepares a builder; go-plugin starts it through Runner.
func Command(opts Options) (*Launched, error) {
	if opts.Isolate && !initCalled.Load() {
		return nil, errors.New("isolate a builder: this program's main does not call sandbox.InitMain")
	}
	program, err := exec.LookPath(opts.Command[0])
	if err != nil {
		return nil, fmt.Errorf("find the builder: %w", err)
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, err
	}
	l := &Launched{opts: opts, program: program, exited: make(chan struct{}), drained: make(chan struct{})}
	l.opts.ReadOnly = make([]string, len(opts.ReadOnly))
	for i, path := range opts.ReadOnly {
		if l.opts.ReadOnly[i], err = filepath.Abs(path); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Lifeline returns the file whose end of file means that the host is gone, nil if this process was not launched here.
func Lifeline() *os.File {
	if os.Getenv(lifelineEnv) == "" {
		return nil
	}
	syscall.CloseOnExec(within.LifelineFD)
	return os.NewFile(within.LifelineFD, "lifeline")
}

// EndGroup ends this process and, if it leads its process group as all that are launched here do, those in the group.
func EndGroup() {
	if syscall.Getpgrp() == os.Getpid() {
		_ = syscall.Kill(0, syscall.SIGKILL)
	}
	os.Exit(1) // the first process of a pid namespace is spared by its own signals
}

// plainEnvironment is what a builder that is not isolated gets of the host's environment: enough to find programs.
// Whatever else is set there could tell machines apart, or is a secret.
func plainEnvironment() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// inside reports whether path lies in dir or is dir.
func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
