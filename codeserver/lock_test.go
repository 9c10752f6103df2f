package codeserver

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLockOfAnotherForAMoment has a process that is being started hold the lock of a codeserver that has ended.
func TestLockOfAnotherForAMoment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lock, err := lockState(dir, lockWait)
	require.NoError(t, err)
	child := exec.Command("sleep", "0.1")
	child.ExtraFiles = []*os.File{lock}
	require.NoError(t, child.Start())
	require.NoError(t, lock.Close())
	again, err := lockState(dir, lockWait)
	require.NoError(t, err)
	_, err = lockState(dir, lockWait)
	require.ErrorIs(t, err, errInUse)
	require.NoError(t, again.Close())
	require.NoError(t, child.Wait())
}
