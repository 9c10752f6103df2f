package codeserver

import (
	"context"
	"strings"
	"time"

	"github.com/pexpress/pexpress/codeserver/worker"
)

// drain returns when a version that gets no new requests has ended those it began, and its jobs.
func drain(ctx context.Context, v *version, run *running) error {
	if !run.hung {
		if err := run.backend.Drain(ctx); err != nil {
			return err
		}
	}
	// When ctx ends before they do, the SIGTERM that ends the version ends them too, and Dagster tells of them as failed.
	for v.isDagster() && hasRuns(run.worker.PID()) {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-run.worker.Done():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// hasRuns reports whether a Dagster code server has runs under way: it executes each in a process below its own, where
// only multiprocessing's own helper lives as long as the server.
func hasRuns(pid int) bool {
	for _, p := range worker.Descendants(pid) {
		if !strings.Contains(p.Command, "multiprocessing.resource_tracker") {
			return true
		}
	}
	return false
}
