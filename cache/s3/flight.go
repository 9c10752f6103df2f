package s3

import (
	"context"
	"sync"
)

// flight shares runs of one piece of work among callers: each gets the result of a run that began after it came.
type flight struct {
	mu        sync.Mutex
	cur, next *flightRun
}

type flightRun struct {
	done chan struct{}
	err  error
}

// do waits for a run of f that begins after the call, together with all who came meanwhile. The run does not end when ctx
// does: others wait for it.
func (f *flight) do(ctx context.Context, work func() error) error {
	f.mu.Lock()
	if f.next == nil {
		f.next = &flightRun{done: make(chan struct{})}
	}
	r := f.next
	if f.cur == nil {
		f.start(work)
	}
	f.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start runs what is next; f.mu is held.
func (f *flight) start(work func() error) {
	r := f.next
	f.cur, f.next = r, nil
	go func() {
		r.err = work()
		close(r.done)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.cur = nil
		if f.next != nil {
			f.start(work)
		}
	}()
}
