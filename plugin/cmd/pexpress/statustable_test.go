package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestBoard: rates are of the time between two messages, start again with a version that was started again, and go with it.
func TestBoard(t *testing.T) {
	begin := time.Unix(1e9, 0)
	message := func(at time.Duration, cpu time.Duration, requests int64) *codeserverpb.Location {
		return &codeserverpb.Location{
			Name: "web", Address: "127.0.0.1:8080", Current: "aaaaaaaaaaaaaaaa", Canary: "cccccccccccccccc", CanaryPercent: 10,
			ListenError: "address already in use",
			Channel:     "prod", ChannelError: "no \x1b[31msignature",
			Failure: &codeserverpb.Failure{Version: "dddddddddddddddd", Time: timestamppb.New(begin), Error: "not ready\nlast words"},
			Versions: []*codeserverpb.Version{
				{Name: "cccccccccccccccc", State: codeserverpb.State_STARTING, DeployedAt: timestamppb.New(begin)},
				{
					Name: "aaaaaaaaaaaaaaaa", State: codeserverpb.State_READY, Pid: 7, DeployedAt: timestamppb.New(begin.Add(-3 * time.Hour)),
					Isolation: []string{"memory: 256 MiB (cgroup v1)"}, LeftOut: map[string]string{"wave": "it hung", "audioop": "so did it"},
					Stages: []*codeserverpb.Stage{{Name: "fork", Took: durationpb.New(31 * time.Millisecond)}},
					Usage: &codeserverpb.Usage{
						Cpu: durationpb.New(cpu), Requests: requests, MeasuredAt: timestamppb.New(begin.Add(at)), MemoryBytes: 3 << 20,
						MemoryPeakBytes: 5 << 20, Processes: 2, FailedRequests: 1, Restarts: 4,
						LatencyP50: durationpb.New(time.Millisecond), LatencyP99: durationpb.New(2 * time.Second),
					},
				},
				{Name: "bbbbbbbbbbbbbbbb", State: codeserverpb.State_STOPPED},
			},
		}
	}
	failed := "the last deploy, of dddddddddddd at " + begin.Local().Format(time.DateTime) + ", failed: not ready"
	b := newBoard()
	show := func(now time.Duration) string {
		var out strings.Builder
		for _, l := range b.lines(begin.Add(now)) {
			l.write(&out, 200, false)
			out.WriteString("\n")
		}
		return strings.ReplaceAll(strings.ReplaceAll(out.String(), "  \n", "\n"), "\n\n", "\n")
	}
	take := func(at, cpu time.Duration, requests int64) { b.take(message(at, cpu, requests), begin.Add(at)) }
	take(0, time.Second, 100)
	require.Regexp(t, `aaaaaaaaaaaa  ready +3h +- +3.0 MiB +5.0 MiB +2 +- `, show(0))
	take(2*time.Second, 2*time.Second, 150)
	take(2*time.Second+time.Millisecond, 2*time.Second, 151) // too soon to say anything
	require.Equal(t, `
web  127.0.0.1:8080, where it does not listen: address already in use  canary cccccccccccc 10 %  channel prod: no \x1b[31msignature  1 other version kept
  `+failed+`
   VERSION       STATE     AGE   CPU   MEMORY     PEAK  PROCS  REQ/S     P50     P99  REQUESTS  FAILED  OPEN  RESTARTS
~  cccccccccccc  starting   5s     -        -        -      -      -       -       -         0       0     0         0
*  aaaaaaaaaaaa  ready      3h  50 %  3.0 MiB  5.0 MiB      2   25.0  1.0 ms  2.00 s       151       1     0         4
     last start: fork 31.0 ms
     isolation: memory: 256 MiB (cgroup v1)
     not imported before the fork: audioop (so did it), wave (it hung)
`, "\n"+strings.TrimPrefix(show(5*time.Second), "\n"))
	take(4*time.Second, time.Second, 10) // by another process
	require.Regexp(t, `3h +- +3.0 MiB +5.0 MiB +2 +- `, show(0))
	gone := &codeserverpb.Location{Name: "web"}
	b.take(gone, begin)
	require.Empty(t, b.lines(begin))
	require.Empty(t, b.rates)
	require.Equal(t, "web  removed", changeText(gone, false))
	require.Equal(t, `web at 127.0.0.1:8080, where it does not listen: address already in use  cccccccccccc starting (canary, 10 %)  aaaaaaaaaaaa ready (serves), 4 restarts; `+failed+channelText(message(0, 0, 0)),
		changeText(message(0, 0, 0), false))

	m := message(0, 0, 0) // it was rolled back to while its process before drained
	drains := &codeserverpb.Version{Name: m.GetCurrent(), State: codeserverpb.State_DRAINING, Pid: 6}
	m.Versions = append(m.Versions, drains)
	b.take(m, begin)
	require.Equal(t, 1, strings.Count(show(0), "\n*  aaaaaaaaaaaa"))
	require.Contains(t, show(0), "aaaaaaaaaaaa  draining (its earlier process) ")
	m.Versions[1].Usage, drains.Usage = &codeserverpb.Usage{Requests: 30}, &codeserverpb.Usage{Requests: 10}
	b.take(m, begin.Add(time.Second))
	require.Regexp(t, `(?m)^\*  aaaaaaaaaaaa  ready .* 30\.0 `, show(0))
	require.Regexp(t, `(?m)^   aaaaaaaaaaaa  draining .* 10\.0 `, show(0), "each process has rates of its own")
	require.False(t, serves(m, drains))
	m.Versions[1].Usage.Restarts, m.Versions[1].LastEnding = 4, &codeserverpb.Ending{Time: timestamppb.New(begin), Reason: "killed"}
	b.take(m, begin.Add(time.Second))
	require.Contains(t, show(0), "\n     4 restarts, the last at "+begin.Local().Format(time.DateTime)+": killed\n")

	var out strings.Builder
	line{{"abc", red}, {"defg", plain}, {"h", green}}.write(&out, 5, true)
	require.Equal(t, "\x1b[31mabc\x1b[0mde", out.String())
}
