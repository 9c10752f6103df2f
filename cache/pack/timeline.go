package pack

import (
	"sync/atomic"
	"time"
)

// timeline is the time that records hold. Promises are counted by it, so it does not jump with the machine's clock: within
// a run it goes by the monotonic clock, and a run does not begin before the newest record of those before it.
type timeline struct {
	now    func() time.Time
	began  time.Time
	base   int64 // what it showed then
	latest atomic.Int64
}

func (t *timeline) begin(now func() time.Time) {
	t.now, t.began = now, now()
	t.base = max(0, t.began.Unix())
}

// notBefore sets it forward to a time of an earlier run.
func (t *timeline) notBefore(seconds uint32) { t.base = max(t.base, int64(seconds)) }

// seconds since 1970. It never goes back, also where now has no monotonic reading.
func (t *timeline) seconds() uint32 {
	at := t.base + max(0, int64(t.now().Sub(t.began)/time.Second))
	for {
		latest := t.latest.Load()
		if at <= latest {
			return uint32(latest)
		}
		if t.latest.CompareAndSwap(latest, at) {
			return uint32(at)
		}
	}
}

// seconds is the time as records hold it.
func (s *Store) seconds() uint32 { return s.clock.seconds() }
