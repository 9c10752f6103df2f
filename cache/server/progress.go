package server

import "time"

// leastProgress is how many bytes a client has to send or take for its time to begin anew: 64 KiB a minute, as the limits
// stand, is a thousandth of a slow line. Less is sent by those who want to keep a place, not to use it.
const leastProgress = 64 << 10

// progress is how long a client may let the server wait. Only the time counts in which the server did wait for it: what the
// store takes is not the client's fault.
type progress struct {
	idle  time.Duration // in which leastProgress has to come
	left  time.Duration
	now   func() time.Time
	moved int64
	since time.Time
}

func newProgress(idle time.Duration) *progress {
	return &progress{idle: idle, left: idle, now: time.Now}
}

// wait begins to wait for the client, and returns for how long. It is more than nothing: what is there already is taken.
func (p *progress) wait() time.Duration {
	p.since = p.now()
	return max(p.left, time.Millisecond)
}

// done ends the wait, in which n bytes have come or gone.
func (p *progress) done(n int) {
	p.left -= p.now().Sub(p.since)
	if p.moved += int64(n); p.moved >= leastProgress {
		p.left, p.moved = p.idle, 0
	}
}
