package limits

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// TestTicker finds a thread on each processor that wakes up again and again, and none when it is stopped, in either way.
func TestTicker(t *testing.T) {
	if kernelTick() <= tickEvery {
		t.Skip("the kernel ticks often enough by itself")
	}
	var said strings.Builder
	ticker := startTicker(slog.New(slog.NewTextHandler(&said, nil)))
	require.NotNil(t, ticker, said.String())
	t.Cleanup(func() { ticker.stop() }) // whichever it is by then
	all := unix.NewCPUSet(maxProcessors)
	require.NoError(t, unix.SchedGetaffinityDynamic(0, all))
	awaitTicks := func() {
		var before map[string]int
		var since time.Time
		require.Eventually(t, func() bool {
			now := switches(ticker.cmd.Process.Pid)
			if len(now) != all.Count() {
				return false
			}
			if before == nil {
				before, since = now, time.Now()
			}
			for on, n := range now {
				if n < before[on]+20 {
					return false
				}
			}
			t.Logf("%v in %s", now, time.Since(since))
			return true
		}, time.Minute, 10*time.Millisecond)
	}
	awaitTicks()
	require.NoError(t, ticker.cmd.Process.Signal(unix.SIGSTOP))
	ticker.stop()
	require.NoDirExists(t, fmt.Sprintf("/proc/%d", ticker.cmd.Process.Pid))
	require.Empty(t, said.String())

	ticker = startTicker(slog.New(slog.NewTextHandler(&said, nil)))
	awaitTicks()
	require.NoError(t, ticker.lifeline.Close()) // as when the codeserver is killed
	<-ticker.done
	require.Contains(t, said.String(), noTicker)
}

// switches returns how often each thread of a process that keeps to one processor has waited, by that processor. On a machine
// with one that is each thread: the one that waits most is meant.
func switches(pid int) map[string]int {
	found := map[string]int{}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		field := func(key string) string {
			_, rest, _ := strings.Cut(string(b), "\n"+key+":\t")
			value, _, _ := strings.Cut(rest, "\n")
			return value
		}
		if on := field("Cpus_allowed_list"); !strings.ContainsAny(on, ",-") {
			n, _ := strconv.Atoi(field("voluntary_ctxt_switches"))
			found[on] = max(found[on], n)
		}
	}
	return found
}
