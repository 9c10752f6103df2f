package observe

import (
	"slices"
	"sync"
	"time"
)

// step is the time between two points of the history, and keep how many there are: an hour.
const (
	step = 10 * time.Second
	keep = 360
)

// Point holds totals at one time. What happened between two points is their difference.
type Point struct {
	Time     int64   `json:"t"` // Unix seconds
	Requests int64   `json:"requests"`
	Errors   int64   `json:"errors"`
	Hits     int64   `json:"hits"`
	Misses   int64   `json:"misses"`
	Read     int64   `json:"read"`
	Written  int64   `json:"written"`
	S3       int64   `json:"s3"`
	Evicted  int64   `json:"evicted"`
	Dollars  float64 `json:"dollars"`
}

type history struct {
	now    func() time.Time
	mu     sync.Mutex
	points []Point
}

func (h *history) sample(p Point) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.points) >= keep {
		h.points = slices.Delete(h.points, 0, len(h.points)-keep+1)
	}
	h.points = append(h.points, p)
}

func (h *history) list() []Point {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.points)
}

// point returns the totals of this moment.
func (v *Observer) point() Point {
	p := Point{
		Time: v.o.Now().Unix(), Requests: v.total.requests.Load(), Errors: v.total.errors.Load(), Hits: v.total.hits.Load(),
		Misses: v.total.misses.Load(), Read: v.total.read.Load(), Written: v.total.written.Load(),
	}
	for _, t := range v.o.Tiers() {
		p.Evicted += t.Evicted
		p.Dollars += v.o.Prices.Dollars(t.Requests)
		for _, n := range t.Requests {
			p.S3 += n
		}
	}
	return p
}
