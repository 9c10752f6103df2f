package disk

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// bootID names the time since the machine was started, "" where that cannot be known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// syncAll makes everything on the file system of f durable at once.
func syncAll(f *os.File) error {
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}
