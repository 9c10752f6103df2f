// Package bytecode makes Python bytecode of wheels, and shares it among the hosts of a fleet.
//
// The bytecode of a wheel for one Python is the output of an Action like any other: its input root is the wheel and the
// program that compiles (compile.py); its output is a tree of "pkg/__pycache__/mod.cpython-311.pyc", as the wheel is
// installed; the same on every host. But bytecode is code, and unlike a wheel's its digest follows from nothing that was
// deployed. An ActionResult is therefore believed only when it is signed with the key that the hosts share (see Key): who
// can write to the cache cannot have a host run anything.
package bytecode

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/pexpress/pexpress/codeserver/venv"
)

//go:embed compile.py
var program []byte

// moduleTimeout is how long one module may take to compile. Large ones take seconds on a busy host.
const moduleTimeout = 2 * time.Minute

// Compile makes bytecode of a wheel's modules with the given interpreter, as venv.Compile says, in a process that gives way
// to all others. A module that makes the process end, or keeps it busy without end, is skipped.
func Compile(ctx context.Context, py *venv.Interpreter, site, out string, modules []string) (skipped []string, err error) {
	return compile(ctx, py, site, out, modules, moduleTimeout)
}

func compile(ctx context.Context, py *venv.Interpreter, site, out string, modules []string, timeout time.Duration) (skipped []string, err error) {
	for {
		done, more, err := run(ctx, py, site, out, modules, timeout)
		skipped = append(skipped, more...)
		switch {
		case err == nil:
			return skipped, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, errKilled) || done == len(modules):
			return nil, fmt.Errorf("compile modules: %w", err)
		}
		skipped, modules = append(skipped, modules[done]), modules[done+1:]
		if len(modules) == 0 {
			return skipped, nil
		}
	}
}

// errKilled says that a signal ended the process: its own, as when it runs out of stack, or one for taking too long.
var errKilled = errors.New("killed by a signal")

// run compiles the modules in one process. It returns how many are done, those among them that do not compile, and why the
// process ended if it was before its time.
func run(ctx context.Context, py *venv.Interpreter, site, out string, modules []string, timeout time.Duration) (done int, skipped []string, err error) {
	job, err := json.Marshal(map[string]any{"root": site, "out": out, "modules": modules})
	if err != nil {
		return 0, nil, err
	}
	// Without site no line of a .pth file is executed. The environment has nothing of the codeserver's.
	cmd := exec.CommandContext(ctx, py.Path, "-S", "-s", "-B", "-c", string(program))
	cmd.Env = []string{"PYTHONHASHSEED=0", "PYTHONUTF8=1"}
	cmd.Dir, cmd.Stdin = out, bytes.NewReader(job)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for the codeserver
	var words tail
	cmd.Stderr = &words
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	late := time.AfterFunc(timeout, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	for s := bufio.NewScanner(lines); done < len(modules) && s.Scan(); done++ {
		late.Reset(timeout)
		if s.Text() == "skipped" {
			skipped = append(skipped, modules[done])
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled():
		err = fmt.Errorf("%w: %w", errKilled, err)
	case err != nil:
		err = fmt.Errorf("%w: %s", err, words.last())
	case done < len(modules):
		err = errors.New("the interpreter ended before its work was done")
	}
	return done, skipped, err
}

// tail keeps the end of what is written.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-4096):]
	return len(p), nil
}

func (t *tail) last() string {
	s := strings.TrimSpace(string(t.b))
	return s[strings.LastIndexByte(s, '\n')+1:]
}
