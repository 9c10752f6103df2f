package worker

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFlood writes more than a version may: the rest is left out and counted, the writer waits, and when it has been quiet
// its lines are kept again.
func TestFlood(t *testing.T) {
	b := &book{}
	now, slept := time.Unix(1, 0), time.Duration(0)
	f := newFlood(b.write, func() time.Time { return now }, func(d time.Duration) { slept += d })
	line := bytes.Repeat([]byte("x"), 1023)
	const burst = logBurst / 1024
	for range burst {
		f.line(line)
	}
	require.Len(t, b.all(), burst)
	for range 1000 {
		f.line(line)
	}
	all := b.all()
	require.Len(t, all, burst+1)
	require.Contains(t, all[burst], "more than 1 MiB a second for long: lines are left out")
	require.Equal(t, 1000*1024/floodPiece*floodPause, slept)
	now = now.Add(3 * time.Second)
	f.line(line)
	require.Len(t, b.all(), burst+1, "not quiet for long enough")
	now = now.Add(time.Second)
	f.line([]byte("again"))
	require.Equal(t, []string{"codeserver: 1001 lines were left out", "again"}, b.all()[burst+1:])
	f.end()
	require.Len(t, b.all(), burst+3, "nothing to say")
}

// TestFloodOfAProcess has a process write without end: the log does not grow without end, and says so.
func TestFloodOfAProcess(t *testing.T) {
	w, b := shell(t, `yes "$(printf %1000d 0)"`, time.Second)
	size := func() (n int) {
		for _, l := range b.all() {
			n += len(l)
		}
		return n
	}
	require.Eventually(t, func() bool {
		all := b.all()
		return len(all) > 0 && bytes.HasPrefix([]byte(all[len(all)-1]), []byte("codeserver: "))
	}, time.Minute, 10*time.Millisecond)
	w.Stop(t.Context())
	require.Less(t, size(), 3*logBurst)
	var dropped int
	all := b.all()
	_, err := fmt.Sscanf(all[len(all)-1], "codeserver: %d lines were left out", &dropped)
	require.NoError(t, err)
	require.Positive(t, dropped)
}
