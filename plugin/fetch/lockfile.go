package fetch

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes the file for this process, until it is closed.
func lockFile(f *os.File) bool { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil }
