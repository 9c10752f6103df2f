package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// commandTimeout is how long a command has to tell a secret.
const commandTimeout = 30 * time.Second

// run returns what a command writes. Neither that nor what it says of an error is shown to anybody: a tool that fails may
// quote what it was given.
func run(ctx context.Context, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var out limited
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout = &out
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second // for what it has left behind with its output open
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("the command %s did not end within %s", args[0], commandTimeout)
	case errors.As(err, &exit):
		return "", fmt.Errorf("the command %s ended with %s; run it as the codeserver's user to see what it says", args[0], exit.ProcessState)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("there is no command %s", args[0])
	case err != nil:
		return "", fmt.Errorf("the command %s: %w", args[0], err)
	}
	return out.String(), nil
}

// limited keeps the first bytes of what is written, one more than a value may have.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if room := maxSize + 2 - l.Len(); room > 0 {
		l.Buffer.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}
