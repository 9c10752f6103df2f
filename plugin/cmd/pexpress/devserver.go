package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/pexpress/pexpress/codeserver/client"
)

// ownServer is a codeserver that 'pexpress dev' has started, and ends.
type ownServer struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// startServer starts a codeserver on the socket where every command looks for one, with its state in $PEXPRESS_HOME, so
// that what was served last is served again, at the same addresses. secrets is its file of secrets, if there is one.
func (a *app) startServer(socket, secrets string) (*ownServer, error) {
	program, err := findCodeserver()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(a.home, "dev")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &ownServer{log: filepath.Join(dir, "codeserver.log"), done: make(chan struct{})}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{"serve", "--state", filepath.Join(dir, "state"), "--cache", a.cache, "--listen", "unix://" + socket}
	if secrets != "" {
		args = append(args, "--secrets", secrets)
	}
	s.cmd = exec.Command(program, args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	// Ctrl-C is for this process, which ends the codeserver in its turn; and the kernel does if this one is killed.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		// To the kernel the parent is the thread that forked: it stays as long as its child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return s, nil
}

// findCodeserver returns the codeserver beside this binary, else the one on PATH.
func findCodeserver() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "codeserver")
		if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath("codeserver")
	if err != nil {
		return "", errors.New("no codeserver answers, and there is none to start, beside pexpress or on PATH: install it, " +
			"or name one that serves with --to")
	}
	return path, nil
}

// await returns a client when the server answers.
func (s *ownServer) await(ctx context.Context, address string) (*client.Client, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := client.Dial(ctx, address); err == nil {
			return c, nil
		}
		select {
		case <-tick.C:
		case <-s.done:
			return nil, fmt.Errorf("the codeserver that was started has ended with %s; the end of its log, %s:\n%s",
				s.cmd.ProcessState, s.log, s.lastWords())
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *ownServer) running() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// lastWords returns the last lines of the server's log.
func (s *ownServer) lastWords() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	lines = lines[max(0, len(lines)-10):]
	return strings.ToValidUTF8(string(bytes.Join(lines, []byte("\n"))), "?")
}

// stop ends the server, and waits until it and its versions have.
func (s *ownServer) stop() {
	if s.running() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
	}
	<-s.done
}
