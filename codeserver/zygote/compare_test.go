package zygote_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCompare has a dependency ignore a signal in whoever imports it, and another one only in that: a zygote imports it in
// place of the version, which the first forked one is seen to differ by.
func TestCompare(t *testing.T) {
	same := newBench(t, remembers+"import signal\nfor n in (signal.SIGUSR2, signal.SIGCHLD): signal.signal(n, signal.SIG_IGN)\n")
	same.start("import threading; t = threading.Thread(target=print); t.start(); t.join()", false, nil)
	require.True(t, same.start("", false, nil).warm)
	require.Empty(t, same.log.String(), "that the C library uses signals for its threads is nothing of a version's")

	b := newBench(t, remembers+"import signal, sys\nif 'main' in sys.argv[0]: signal.signal(signal.SIGUSR2, signal.SIG_IGN)\n")
	b.start("", false, nil)
	require.Empty(t, b.log.String())
	for range 2 {
		require.True(t, b.start("", false, nil).warm)
		require.Equal(t, 1, strings.Count(b.log.String(), "differs"), "once: %s", b.log)
	}
	require.Contains(t, b.log.String(), "what=SigIgn")
}
