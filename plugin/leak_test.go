package plugin

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}

// TestLeaks starts and ends many builders, good and bad, and checks that nothing of them is left: descriptors,
// goroutines, threads that wait for them, zombies, directories.
func TestLeaks(t *testing.T) {
	modes := []string{"good", "exit", "start-exit", "good"}
	cas := newStore()
	action := newAction(t, cas)
	round := func(i int) {
		opts := options(t, modes[i%len(modes)], marker(), i%2 == i/2%2)
		p, err := Start(t.Context(), opts)
		if opts.Command[2] == "start-exit" {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		_, err = p.Build(t.Context(), cas, action)
		require.Equal(t, opts.Command[2] == "good", err == nil, "%v", err)
		require.NoError(t, p.Close())
		requireNoDir(t, p)
	}
	for i := range len(modes) {
		round(i) // what is made once and kept
	}
	fds, goroutines := descriptors(t), runtime.NumGoroutine()
	for i := range 48 {
		round(i)
	}
	// gRPC's goroutines take a moment to see that their connections are closed.
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+2 }, soon, 10*time.Millisecond,
		"goroutines: %d before", goroutines)
	require.LessOrEqual(t, descriptors(t), fds+2)
	requireNoZombies(t)
}

// TestStartCost measures what a builder costs before it builds; it asserts nothing.
func TestStartCost(t *testing.T) {
	bothWays(t, func(t *testing.T, isolate bool) {
		const rounds = 10
		began := time.Now()
		for range rounds {
			p, err := Start(t.Context(), options(t, "good", marker(), isolate))
			require.NoError(t, err)
			_, err = p.Describe(t.Context())
			require.NoError(t, err)
			require.NoError(t, p.Close())
		}
		t.Logf("start, describe and close: %s", time.Since(began)/rounds)
	})
}
