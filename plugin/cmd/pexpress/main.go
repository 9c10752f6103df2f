// Command pexpress locks, builds and deploys a Python project as two content-addressed trees, deps.pex and source.pex.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/pexpress/pexpress/plugin/sandbox"
)

func main() {
	sandbox.InitMain()
	sparing()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// The first signal ends the work in good order; a second one finds no handler and ends the process.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err))
}
