package worker

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEndedBefore has a shim end before anybody has asked which process it is: that is no failure of the version's start.
func TestEndedBefore(t *testing.T) {
	conn, theirs, err := pair()
	require.NoError(t, err)
	s := &shim{conn: conn, pidfd: -1}
	require.NoError(t, theirs.Close())
	s.wait()
	require.NoError(t, s.open(os.Getpid()))
	require.Zero(t, s.pid())
}
