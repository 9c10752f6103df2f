package instance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRecount drives the clock: what the store says replaces what was counted here before it was asked.
func TestRecount(t *testing.T) {
	now := time.Unix(1e9, 0)
	held, err := int64(0), error(nil)
	q := newQuota("q", 100, func(context.Context, string) (int64, error) { return held, err })
	q.now = func() time.Time { return now }
	write := func(n int64) error {
		done, err := q.reserve(t.Context(), n)
		if err == nil {
			done(n)
		}
		return err
	}
	next := func() {
		now = now.Add(recount)
		require.NoError(t, write(0), "it asks the store")
	}
	require.NoError(t, write(60))
	require.Error(t, write(60), "60 of 100 are taken")
	next()
	require.Error(t, write(60), "the store may have counted before they were written")
	next()
	require.NoError(t, write(60), "by now it would know: it had the blob already, and nothing was added")
	held = 99
	require.Error(t, write(60))
	next()
	next()
	require.NoError(t, write(1), "another node has filled it up to 99")
	require.Error(t, write(1))
	err = errors.New("away")
	next()
	require.Error(t, write(1), "the last answer holds while the store gives none")
	held, err = 0, nil
	next()
	next()
	require.NoError(t, write(100))
}

func TestReservedRoomIsTaken(t *testing.T) {
	q := newQuota("q", 100, func(context.Context, string) (int64, error) { return 0, nil })
	done, err := q.reserve(t.Context(), 100)
	require.NoError(t, err)
	_, err = q.reserve(t.Context(), 1)
	require.Error(t, err, "two that write at once do not both get the last room")
	done(0)
	_, err = q.reserve(t.Context(), 100)
	require.NoError(t, err)
}

// TestFailedCountIsNotRepeated: a store that gives no answer is asked again after a while, not for each blob.
func TestFailedCountIsNotRepeated(t *testing.T) {
	now, asked, err := time.Unix(1e9, 0), 0, error(nil)
	q := newQuota("q", 100, func(context.Context, string) (int64, error) { asked++; return 10, err })
	q.now = func() time.Time { return now }
	room := func(n int64) error {
		_, err := q.reserve(t.Context(), n)
		return err
	}
	require.NoError(t, room(0))
	err = errors.New("away")
	now = now.Add(recount)
	for range 5 {
		require.NoError(t, room(0))
	}
	require.Equal(t, 2, asked)
	require.Error(t, room(91), "the last answer holds")
}
