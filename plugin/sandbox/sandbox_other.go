//go:build !linux

package sandbox

import (
	"errors"
	"os/exec"
	"syscall"
)

// InitMain does nothing here: only Linux has the namespaces that isolation is made of.
func InitMain() { initCalled.Store(true) }

func (l *Launched) command(env []string) (*exec.Cmd, error) {
	if l.opts.Isolate {
		l.startErr = errors.New("only Linux has the namespaces that it is made of")
		return nil, l.startErr
	}
	cmd := exec.Command(l.program, l.opts.Command[1:]...)
	cmd.Env = append(plainEnvironment(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

func lockThread() {}

func (l *Launched) await(cmd *exec.Cmd) {
	err := cmd.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	killGroup(cmd.Process.Pid)
	l.err, l.running = err, false
}

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }
