//go:build !linux

package sandbox

import (
	"os"
	"os/exec"
	"syscall"
)

// InitMain does nothing here: only Linux has the namespaces that isolation is made of.
func InitMain() {}

func (l *Launched) command(env []string) (*exec.Cmd, error) {
	cmd := exec.Command(l.program, l.opts.Command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

func lockThread() {}

func killGroup(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	_ = p.Kill()
}
