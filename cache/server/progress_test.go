package server

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestProgress drives the clock.
func TestProgress(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := newProgress(time.Minute)
	p.now = func() time.Time { return now }
	step := func(d time.Duration, n int) time.Duration {
		p.wait()
		now = now.Add(d)
		p.done(n)
		return p.wait()
	}
	require.Equal(t, 50*time.Second, step(10*time.Second, 1))
	require.Equal(t, 40*time.Second, step(10*time.Second, 1), "a byte now and then is not progress")
	require.Equal(t, time.Minute, step(10*time.Second, leastProgress), "64 KiB are")
	now = now.Add(time.Hour)
	require.Equal(t, time.Minute, p.wait(), "while the server is busy with other things the client's time stands still")
	require.Equal(t, 59*time.Second, step(time.Second, leastProgress/2))
	require.Equal(t, time.Minute, step(time.Second, leastProgress/2), "also bit by bit")
	require.Equal(t, time.Millisecond, step(2*time.Minute, 1))
}

// TestLeaseEnds: what a client does not take keeps nobody waiting for long.
func TestLeaseEnds(t *testing.T) {
	b := newBudget(100)
	b.lend = time.Millisecond
	release, err := b.lease(t.Context(), 100)
	require.NoError(t, err)
	again, err := b.take(t.Context(), 100)
	require.NoError(t, err, "it has come free although nobody gave it back")
	release()
	_, ok := b.tryTake(1)
	require.False(t, ok, "it is not given back twice")
	again()
}

// TestSharedMemory: two servers with one Option have one memory.
func TestSharedMemory(t *testing.T) {
	o := WithMemory(1000)
	a, b := newServer(nil, []Option{o}), newServer(nil, []Option{o})
	_, err := a.budget.take(t.Context(), 750)
	require.NoError(t, err)
	_, ok := b.budget.tryTake(1)
	require.False(t, ok)
	_, err = a.waiting.take(t.Context(), 250)
	require.NoError(t, err)
	_, ok = b.waiting.tryTake(1)
	require.False(t, ok)
	other := newServer(nil, []Option{WithMemory(1000)})
	_, ok = other.budget.tryTake(750)
	require.True(t, ok)
}
