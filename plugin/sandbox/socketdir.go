package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	dirPrefix = "pexpress-b-" // and digits: nothing else is ours to remove
	dirLock   = "host.lock"
	// dirGrace is the age from which on a directory that nobody has locked is one whose host is gone: a younger one may
	// be about to be locked.
	dirGrace = time.Minute
)

// SocketDir is a directory for sockets that only this user can enter.
type SocketDir struct {
	Path string
	lock *os.File
}

// NewSocketDir makes a directory. Its path is short: a unix socket's may have no more than 107 bytes. Those of hosts
// that were killed are removed.
func NewSocketDir() (*SocketDir, error) {
	parent, err := filepath.Abs(os.TempDir())
	if err != nil || len(parent) > 40 {
		parent = "/tmp"
	}
	sweep(parent)
	path, err := os.MkdirTemp(parent, dirPrefix)
	if err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, dirLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		if err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			lock.Close()
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return &SocketDir{path, lock}, nil
}

// Close removes the directory.
func (d *SocketDir) Close() error {
	return errors.Join(os.RemoveAll(d.Path), d.lock.Close())
}

// sweep removes the directories whose hosts were killed. What cannot be removed stays: it is in nobody's way.
func sweep(parent string) {
	entries, _ := os.ReadDir(parent)
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), dirPrefix)
		if !ok || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		name := filepath.Join(parent, e.Name(), dirLock)
		st, err := os.Lstat(name)
		if errors.Is(err, os.ErrNotExist) {
			// Its host was killed before it could lock it, or while it removed it.
			if dir, err := os.Lstat(filepath.Dir(name)); err == nil && dir.IsDir() && time.Since(dir.ModTime()) > dirGrace && ours(dir) &&
				dir.Mode().Perm() == 0o700 {
				_ = os.RemoveAll(filepath.Dir(name))
			}
			continue
		}
		if err != nil || !st.Mode().IsRegular() || time.Since(st.ModTime()) < dirGrace {
			continue
		}
		if !ours(st) {
			continue
		}
		lock, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(name))
		}
		lock.Close()
	}
}

func ours(st os.FileInfo) bool {
	own, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(own.Uid) == os.Getuid()
}
