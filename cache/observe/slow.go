package observe

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// SlowCall is one of the slowest requests of late.
type SlowCall struct {
	ID       string    `json:"id"`
	Method   string    `json:"method"`
	Instance string    `json:"instance"`
	Mnemonic string    `json:"mnemonic,omitempty"`
	Who      string    `json:"principal,omitempty"`
	Code     string    `json:"code"`
	Ended    time.Time `json:"ended"`
	Seconds  float64   `json:"seconds"`
	Bytes    int64     `json:"bytes"`
}

// slow keeps the slowest calls of the last quarter of an hour.
type slow struct {
	now   func() time.Time
	floor atomic.Int64 // nanoseconds that a call must have taken to be of interest
	until atomic.Int64 // when the first of those that are kept expires, and the floor with it
	mu    sync.Mutex
	kept  []SlowCall // slowest first
}

const (
	keepSlow    = 12
	keepSlowFor = 15 * time.Minute
)

// add is called for every request, and cheap for all but the slow ones.
func (s *slow) add(took time.Duration, c *call, code string) {
	if int64(took) < s.floor.Load() && s.now().UnixNano() < s.until.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	s.kept = append(s.kept, SlowCall{
		ID: c.id, Method: c.method, Instance: text(&c.instance), Mnemonic: text(&c.mnemonic), Who: text(&c.who),
		Code: code, Ended: s.now(), Seconds: took.Seconds(), Bytes: c.bytes.Load(),
	})
	slices.SortStableFunc(s.kept, func(a, b SlowCall) int {
		switch {
		case a.Seconds > b.Seconds:
			return -1
		case a.Seconds < b.Seconds:
			return 1
		}
		return 0
	})
	s.kept = s.kept[:min(len(s.kept), keepSlow)]
	s.setFloor()
}

func (s *slow) expire() {
	limit := s.now().Add(-keepSlowFor)
	s.kept = slices.DeleteFunc(s.kept, func(c SlowCall) bool { return c.Ended.Before(limit) })
}

func (s *slow) setFloor() {
	floor, until := int64(0), s.now().Add(keepSlowFor)
	if len(s.kept) == keepSlow {
		floor = int64(s.kept[keepSlow-1].Seconds * float64(time.Second))
	}
	for _, c := range s.kept {
		if end := c.Ended.Add(keepSlowFor); end.Before(until) {
			until = end
		}
	}
	s.floor.Store(floor)
	s.until.Store(until.UnixNano())
}

func (s *slow) list() []SlowCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	s.setFloor()
	return slices.Clone(s.kept)
}
