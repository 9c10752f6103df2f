package proxy

import (
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// lastAnswers is how many answers latencies are told of.
const lastAnswers = 1024

// Stats is what became of the requests of one version. It may outlive the
// version's process and be the next one's.
type Stats struct {
	above                   *Stats // counts the same, of all versions of a location; nil if there is none
	begun, answered, failed atomic.Int64
	first                   atomic.Pointer[func(begin time.Time)]
	next                    atomic.Uint64
	took                    [lastAnswers]atomic.Int64 // nanoseconds; 0 is none yet
	buckets                 [buckets]atomic.Int64     // answers since s was made, by how long they took; see bounds
	slow                    atomic.Int64              // that took longer than the last bound
	sum                     atomic.Int64              // nanoseconds
}

// bounds are those of the histogram: what took longer than the last is counted only as an answer.
var bounds = [buckets]float64{.0002, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

const buckets = 17

// Histogram is how long answers took, all since a Stats was made.
type Histogram struct {
	Count   uint64
	Sum     time.Duration
	Buckets map[float64]uint64 // how many took at most so many seconds
}

// Histogram returns that of s.
func (s *Stats) Histogram() Histogram {
	h := Histogram{Sum: time.Duration(s.sum.Load()), Buckets: map[float64]uint64{}}
	for i, bound := range bounds {
		h.Count += uint64(s.buckets[i].Load())
		h.Buckets[bound] = h.Count
	}
	h.Count += uint64(s.slow.Load())
	return h
}

// NewStats returns Stats whose requests are counted in above, too.
func NewStats(above *Stats) *Stats { return &Stats{above: above} }

// Counts are numbers of requests at one time. Failed ones are among those that
// were answered.
type Counts struct{ Begun, Answered, Failed int64 }

// Counts returns the numbers since s was made.
func (s *Stats) Counts() Counts {
	// What ends in between is not yet answered, so that Answered never exceeds Begun.
	failed, answered := s.failed.Load(), s.answered.Load()
	return Counts{Begun: s.begun.Load(), Answered: answered, Failed: failed}
}

// Latencies returns how long half and 99 of 100 of the last answers took at
// most; zeros before the first. Upgraded connections are not among them.
func (s *Stats) Latencies() (p50, p99 time.Duration) {
	took := make([]int64, 0, lastAnswers)
	for i := range s.took {
		if t := s.took[i].Load(); t > 0 {
			took = append(took, t)
		}
	}
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	rank := func(percent int) time.Duration { return time.Duration(took[(len(took)*percent+99)/100-1]) }
	return rank(50), rank(99)
}

// First has told be called once, at the end of the next request that does not fail, with when it began. Told must not wait.
func (s *Stats) First(told func(begin time.Time)) { s.first.Store(&told) }

func (s *Stats) begin() {
	for ; s != nil; s = s.above {
		s.begun.Add(1)
	}
}

func (s *Stats) end(failed bool) {
	for ; s != nil; s = s.above {
		s.answered.Add(1)
		if failed {
			s.failed.Add(1)
		}
	}
}

func (s *Stats) time(took time.Duration) {
	for ; s != nil; s = s.above {
		s.took[(s.next.Add(1)-1)%lastAnswers].Store(max(1, int64(took)))
		s.sum.Add(int64(took))
		if i, _ := slices.BinarySearch(bounds[:], took.Seconds()); i < buckets {
			s.buckets[i].Add(1)
		} else {
			s.slow.Add(1)
		}
	}
}

// measure counts the end of a request that began at a time; finished is false
// when the handler panics, which is how an answer is broken off. Who has gone
// when all is said may have gone with a whole answer: what the version said
// counts, and only what it did not get to say is not its failure.
func (x *exchange) measure(begin time.Time, finished bool) {
	gone := x.in.Context().Err() != nil || x.w.unheard
	failed := x.isFailure(gone) || !finished && !gone
	x.backend.stats.end(failed)
	if !failed && finished && x.backend.stats.first.Load() != nil {
		if told := x.backend.stats.first.Swap(nil); told != nil {
			(*told)(begin)
		}
	}
	if x.w.code != http.StatusSwitchingProtocols {
		x.backend.stats.time(time.Since(begin))
	}
}

// isFailure reports whether the answer is one by which a server says that it
// has failed, and not the client.
func (x *exchange) isFailure(gone bool) bool {
	if x.w.code >= http.StatusInternalServerError {
		return !x.w.late
	}
	if !x.grpc {
		return false
	}
	status := x.w.Header().Get(grpcStatus)
	if status == "" {
		status = x.w.Header().Get(http.TrailerPrefix + grpcStatus)
	}
	return serverFailures[status] || status == "" && !gone
}

// serverFailures are the gRPC statuses that count: UNKNOWN, DEADLINE_EXCEEDED,
// RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. None at all
// counts, too.
var serverFailures = map[string]bool{
	"2": true, "4": true, "8": true, "12": true, "13": true, "14": true, "15": true,
}
