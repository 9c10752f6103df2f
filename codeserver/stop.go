package codeserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// Stop ends all that serves a state directory: its codeserver, if one runs, which is sent SIGINT, and the versions, also
// those that wait for the next codeserver. log may be nil.
func Stop(ctx context.Context, state string, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(state)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "lock")); err != nil {
		return fmt.Errorf("%s is not the state directory of a codeserver: %w", dir, err)
	}
	lock, err := stopServer(ctx, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	host := limits.Open(dir, log)
	found, err := worker.Orphans(filepath.Join(dir, "run"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		log.Warn("processes without a codeserver", "error", err)
	}
	var wg sync.WaitGroup
	for _, o := range found {
		wg.Go(func() { endOrphan(ctx, host, o) })
	}
	wg.Wait()
	return host.Sweep(worker.Owned)
}

// stopServer ends the codeserver that has the lock, and returns with the lock.
func stopServer(ctx context.Context, dir string) (*os.File, error) {
	asked := 0
	for {
		lock, err := lockState(dir, 0)
		if !errors.Is(err, errInUse) {
			return lock, err
		}
		// It may have ended, and another may have come, since the file was read: the one that is asked is the one that has
		// the lock afterwards.
		if pid := lockedBy(dir); pid > 1 && pid != asked {
			asked = pid
			if err := interrupt(dir, pid); err != nil {
				return nil, fmt.Errorf("end the codeserver, process %d: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the codeserver, process %d, does not end: %w", asked, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lockedBy returns the process that has written itself into the lock, 0 if there is none.
func lockedBy(dir string) int {
	b, _ := os.ReadFile(filepath.Join(dir, "lock"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// interrupt sends SIGINT to a process if it is still the one that has the lock.
func interrupt(dir string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	lock, err := lockState(dir, 0)
	if err == nil {
		return lock.Close() // it has ended
	}
	if !errors.Is(err, errInUse) || lockedBy(dir) != pid {
		return nil //nolint:nilerr // the next round looks again
	}
	err = unix.PidfdSendSignal(fd, unix.SIGINT, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}
