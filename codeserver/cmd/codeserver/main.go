// Command codeserver serves versions of Python projects on this host, by the digests of their trees.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/pexpress/pexpress/codeserver/worker"
)

func main() {
	worker.Main()
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endings...)
	go func() {
		s := <-signals
		// The first signal ends the work in good order; a second one finds no handler and ends the process.
		signal.Reset(endings...)
		cancel(signalled{s})
	}()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cancel(nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, "codeserver: "+err.Error())
	}
	os.Exit(exitCode(err))
}

// endings are the signals that end a codeserver, each in its way; SIGUSR2, which may, is for serve.
var endings = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

// signalled is why a context ended.
type signalled struct{ os.Signal }

func (s signalled) Error() string { return s.String() }

// endedBy returns the signal that has ended a context, nil if none has.
func endedBy(ctx context.Context) os.Signal {
	if s, ok := context.Cause(ctx).(signalled); ok { //nolint:errorlint // it is the cause itself
		return s.Signal
	}
	return nil
}
