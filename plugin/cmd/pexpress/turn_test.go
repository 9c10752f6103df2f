package main

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestInTurn waits for another deploy to end, which it does, or does not.
func TestInTurn(t *testing.T) {
	busy := deployError(status.Error(codes.Aborted, "another deploy of web is under way"))
	tries, waits := 0, 0
	try := func() error {
		if tries++; tries < 3 {
			return busy
		}
		return nil
	}
	waiting := func(time.Duration) { waits++ }
	require.NoError(t, inTurn(t.Context(), time.Hour, try, waiting))
	require.Equal(t, 3, tries)
	require.Equal(t, 2, waits)

	err := inTurn(t.Context(), firstWait/2, func() error { return busy }, waiting)
	require.ErrorContains(t, err, "another deploy of web is under way; it was waited for")
	require.Equal(t, exitUnavailable, exitCode(err))

	other := errors.New("another failure")
	require.Equal(t, other, inTurn(t.Context(), time.Hour, func() error { return other }, waiting))
	require.Equal(t, 2, waits)
}
