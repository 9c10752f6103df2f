package page

import (
	"fmt"
	"slices"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// step is the time between two points of the history, and keep how many there are: an hour.
const (
	step = 5 * time.Second
	keep = 720
)

// point is what a location used at one time. Rates are those since the point before.
type point struct {
	Time     int64   `json:"t"`      // Unix milliseconds
	Memory   int64   `json:"memory"` // bytes, of all its versions
	CPU      float64 `json:"cpu"`    // processors
	Requests float64 `json:"rps"`
	Failed   float64 `json:"failed"` // requests a second
}

// series is the history of one location.
type series struct {
	points []point
	at     time.Time
	before map[string]totals // by version, or process where one is started again
}

// totals only grow while a version is kept.
type totals struct {
	cpu              time.Duration
	requests, failed int64
}

// add samples a location.
func (s *series) add(now time.Time, l *codeserverpb.Location) {
	p := point{Time: now.UnixMilli(), Memory: memoryOf(l)}
	after := map[string]totals{}
	seconds := now.Sub(s.at).Seconds()
	for _, v := range l.GetVersions() {
		u := v.GetUsage()
		t := totals{u.GetCpu().AsDuration(), u.GetRequests(), u.GetFailedRequests()}
		key := v.GetName()
		if _, twin := after[key]; twin {
			key = fmt.Sprintf("%s/%d", key, v.GetPid())
		}
		b, known := s.before[key]
		after[key] = t
		if s.at.IsZero() || seconds <= 0 {
			continue
		}
		if !known && now.Sub(v.GetDeployedAt().AsTime()) > now.Sub(s.at) {
			continue // it was there and was not measured: when it did what it did is not known
		}
		p.CPU += grown(b.cpu.Seconds(), t.cpu.Seconds()) / seconds
		p.Requests += grown(float64(b.requests), float64(t.requests)) / seconds
		p.Failed += grown(float64(b.failed), float64(t.failed)) / seconds
	}
	s.before, s.at = after, now
	if len(s.points) >= keep {
		s.points = slices.Delete(s.points, 0, len(s.points)-keep+1)
	}
	s.points = append(s.points, p)
}

// grown is by how much a total has grown. One that is less than before is of a version that was deployed anew.
func grown(before, now float64) float64 { return max(0, now-before) }

func memoryOf(l *codeserverpb.Location) (bytes int64) {
	for _, v := range l.GetVersions() {
		bytes += v.GetUsage().GetMemoryBytes()
	}
	return bytes
}
