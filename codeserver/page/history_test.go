package page

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestTwins has a version started again: what one process has done since it was deployed is nothing that the other did just now.
func TestTwins(t *testing.T) {
	begin := time.Now()
	process := func(pid, requests int64, at time.Time) *codeserverpb.Version {
		return &codeserverpb.Version{Name: "a", Pid: pid, DeployedAt: timestamppb.New(at), Usage: &codeserverpb.Usage{Requests: requests}}
	}
	var s series
	second := 0
	sample := func(want float64, versions ...*codeserverpb.Version) {
		t.Helper()
		s.add(begin.Add(time.Duration(second)*time.Second), &codeserverpb.Location{Name: "web", Current: "a", Versions: versions})
		require.InDelta(t, want, s.points[len(s.points)-1].Requests, 0.01)
		second += 5
	}
	old, now := begin.Add(-time.Hour), begin.Add(7*time.Second)
	sample(0, process(1, 1_000_000, old))
	sample(10, process(1, 1_000_050, old))
	sample(10, process(1, 1_000_100, old), process(2, 0, now))
	sample(10, process(1, 1_000_150, old), process(2, 0, now))
	sample(0, process(2, 40, now), process(1, 1_000_160, old)) // it has the traffic
	sample(10, process(2, 90, now), process(1, 1_000_160, old))
	sample(12, process(2, 140, now), process(1, 1_000_170, old))
	sample(10, process(2, 190, now))
}
