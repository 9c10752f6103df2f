package sandbox

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSweep removes what killed hosts left, with its lock or without, and nothing that is not named as theirs.
func TestSweep(t *testing.T) {
	parent := t.TempDir()
	old := time.Now().Add(-time.Hour)
	dir := func(name string, locked bool, when time.Time) {
		path := filepath.Join(parent, name)
		require.NoError(t, os.Mkdir(path, 0o700))
		if locked {
			require.NoError(t, os.WriteFile(filepath.Join(path, dirLock), nil, 0o600))
			require.NoError(t, os.Chtimes(filepath.Join(path, dirLock), when, when))
		}
		require.NoError(t, os.Chtimes(path, when, when))
	}
	dir(dirPrefix+"1", true, old)
	dir(dirPrefix+"2", false, old)
	dir(dirPrefix+"3", true, time.Now())
	dir(dirPrefix+"4", false, time.Now())
	dir(dirPrefix+"mine", false, old)
	dir("pexpress-test5", false, old)
	dir("pexpress-6", true, old)
	sweep(parent)
	entries, err := os.ReadDir(parent)
	require.NoError(t, err)
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	require.ElementsMatch(t, []string{dirPrefix + "3", dirPrefix + "4", dirPrefix + "mine", "pexpress-test5", "pexpress-6"}, left)
}
