package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Another deploy of a location is waited for, longer each time, and turnTime in all: it fetches deps.pex at worst, and has
// its own time to become ready.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second
	turnTime  = 15 * time.Minute
)

// inTurn tries until the codeserver does not answer any more that another deploy is under way, but not for longer than
// limit; waiting is called before each wait.
func inTurn(ctx context.Context, limit time.Duration, try func() error, waiting func(time.Duration)) error {
	start := time.Now()
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := try()
		if status.Code(err) != codes.Aborted {
			return err
		}
		if time.Since(start)+wait > limit {
			return unavailableError{fmt.Errorf("%w; it was waited for %s: see pexpress status and the codeserver's log for what holds it up",
				err, limit)}
		}
		waiting(wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
