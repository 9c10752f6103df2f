package ci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/pexpress/pexpress/cache/lazy"
)

// headTime is how long git may take to ask.
const headTime = 2 * time.Minute

// ErrHead says that the branch's present commit could not be asked for.
var ErrHead = errors.New("cannot tell which commit the branch is at now")

var commitHash = lazy.Regexp(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// Head asks the remote of the checkout in dir which commit a branch is at; "" if there is no such branch any more.
func Head(ctx context.Context, dir, branch string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, headTime)
	defer cancel()
	ref := "refs/heads/" + branch
	cmd := exec.CommandContext(ctx, "git", "ls-remote", "origin", ref)
	cmd.Dir = dir
	// There is nobody to type a password, and git's helpers must not outlive it.
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: git ls-remote origin %s: %w: %s", ErrHead, ref, err, strings.TrimSpace(stderr.String()))
	}
	for line := range strings.Lines(string(out)) {
		commit, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if name == ref && commitHash().MatchString(commit) {
			return commit, nil
		}
	}
	return "", nil
}
