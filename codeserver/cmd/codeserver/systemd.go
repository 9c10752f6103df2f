package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/local"
	"github.com/pexpress/pexpress/codeserver"
	"github.com/pexpress/pexpress/codeserver/sockets"
)

// notify tells systemd, if it is there, what state the service is in; see sd_notify(3).
func notify(log *slog.Logger, states ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		log.Warn("systemd was not told", "state", states[0], "error", err)
	}
}

// reloading says that the program is about to be executed anew. systemd wants to know when, to tell it from what was sent
// before.
func reloading() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000)
}

// watchdog tells systemd again and again, if it wants to know, that the codeserver answers, until ctx ends.
func watchdog(ctx context.Context, s *codeserver.Server, log *slog.Logger) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog", "error", err)
	}
	if every <= 0 {
		return
	}
	go func() {
		tick := time.NewTicker(every / 3)
		defer tick.Stop()
		for {
			s.Check() // returns when nothing is stuck
			notify(log, daemon.SdNotifyWatchdog)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
}

// Names of sockets that outlive the process.
const (
	controlSocket = "control"
	pageSocket    = "page"
)

// passed returns a socket that was passed to this process, nil if it was not, and whether it is systemd's own.
func passed(set *sockets.Set, name, address string) (l net.Listener, systemds bool, err error) {
	network, place := "tcp", address
	if path, ok := local.Socket(address); ok {
		network, place = "unix", path
	}
	l, as, err := set.Take(name, network, place)
	if l == nil || err != nil || as == name {
		return l, false, err
	}
	return l, true, set.Pass(as, l)
}
