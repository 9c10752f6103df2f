package worker

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
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
	told := b.all()[burst+1:]
	require.Len(t, told, 1+floodLast+1)
	require.Equal(t, "codeserver: 1001 lines were left out; the last of them, up to 40:", told[0])
	require.Equal(t, string(line), told[1])
	require.Equal(t, "again", told[1+floodLast])
	f.end()
	require.Len(t, b.all(), burst+1+len(told), "nothing to say")
}

// TestFloodOfAProcess has a process write more than it may, and then its last words: the log does not grow without end, says
// so, and has the last words, while the process still runs.
func TestFloodOfAProcess(t *testing.T) {
	w, b := shell(t, `yes "$(printf %1000d 0)" | head -n 20000; echo the last words; sleep 600`, time.Second)
	require.Eventually(t, func() bool {
		all := b.all()
		return len(all) > 0 && all[len(all)-1] == "the last words"
	}, time.Minute, 10*time.Millisecond)
	select {
	case <-w.Done():
		require.Fail(t, "it runs no more")
	default:
	}
	size, dropped := 0, 0
	for _, l := range b.all() {
		size += len(l)
		_, _ = fmt.Sscanf(l, "codeserver: %d lines were left out;", &dropped)
	}
	require.Less(t, size, 2*logBurst)
	require.Greater(t, dropped, 5000)
	w.Stop(t.Context())
}

// TestFloodHalfLine has a version be silent in the middle of a line: what a flood left out is told meanwhile, and the line stays one.
func TestFloodHalfLine(t *testing.T) {
	r, w, err := outputPipe()
	require.NoError(t, err)
	defer r.Close()
	b, done := &book{}, make(chan struct{})
	go func() {
		defer close(done)
		readLines(r, b.write)
	}()
	flood := strings.Repeat("x", 1000)
	_, err = w.WriteString(strings.Repeat(flood+"\n", 10<<10) + "half of ")
	require.NoError(t, err)
	leftOut := func(line string) bool { return strings.Contains(line, "lines were left out") }
	require.Eventually(t, func() bool { return slices.ContainsFunc(b.all(), leftOut) }, time.Minute, 10*time.Millisecond)
	_, err = w.WriteString("a line\n")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	<-done
	all := b.all()
	require.Equal(t, []string{flood, "half of a line"}, all[len(all)-2:])
}

// TestLastWords has a process end in the middle of a flood.
func TestLastWords(t *testing.T) {
	w, b := shell(t, `yes "$(printf %1000d 0)" | head -n 20000; echo the last words`, time.Second)
	<-w.Done()
	all := b.all()
	require.Equal(t, "the last words", all[len(all)-1])
}
