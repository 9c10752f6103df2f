package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// awaitUpgrade calls end when a signal on upgrades asks for the program to be executed anew, and the one at its path is one
// that can be. Nothing is given up before that is known; without leaves, that versions are left to that program, all would be. It
// returns when ctx ends.
func awaitUpgrade(ctx context.Context, upgrades <-chan os.Signal, leaves bool, log *slog.Logger, end context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-upgrades:
			if !leaves {
				log.Error("no upgrade: versions would end with this program, which was started without --adopt-within. It goes on; end it " +
					"with SIGTERM and start it anew with that flag: from then on SIGUSR2 interrupts nobody")
				continue
			}
			program, err := os.Executable()
			if err == nil {
				err = checkProgram(ctx, program, checkTime)
			}
			if err == nil {
				signal.Reset(endings...) // a second signal ends the process
				end(signalled{s})
				return
			}
			log.Error("no upgrade: this program goes on; put one that works in its place and send the signal again", "program", program, "error", err)
		}
	}
}

// checkTime is how long a program may take to say what it is, a thing of milliseconds.
const checkTime = 5 * time.Second

// checkProgram returns an error if a file cannot be executed as a codeserver.
func checkProgram(ctx context.Context, program string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "serve", "--help")
	cmd.WaitDelay = time.Second
	// Of its own process group, which is ended as a whole: nothing of it stays.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("%s serve --help did not end within %s", program, within)
	}
	if err != nil {
		return fmt.Errorf("%s serve --help: %w: %.200q", program, err, out)
	}
	if !bytes.Contains(out, []byte("--adopt-within")) {
		return errors.New(program + " is no codeserver")
	}
	return nil
}
