package disk

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// session is the directory for one Store's temporary files. Its lock, which the kernel drops with the process, says
// that they are still wanted.
type session struct {
	dir  string
	lock *os.File
}

func newSession(tmp string) (*session, error) {
	for {
		dir, err := os.MkdirTemp(tmp, "")
		if err != nil {
			return nil, err
		}
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // swept between two steps, as a directory that nobody held
		}
		if err != nil {
			return nil, err
		}
		locked, err := tryLock(f)
		if err == nil && locked && sameFile(f, dir) {
			return &session{dir: dir, lock: f}, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

func (s *session) close() error {
	return errors.Join(os.RemoveAll(s.dir), s.lock.Close())
}

// sweep removes the temporary files of processes that are no more.
func (s *Store) sweep() error {
	tmp := s.path("tmp")
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := sweepSession(tmp + "/" + e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func sweepSession(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if dead, err := tryLock(f); err != nil || !dead {
		return err
	}
	return os.RemoveAll(dir)
}

// temp makes a new file for the Store alone.
func (s *Store) temp() (*os.File, error) {
	path := s.session.dir + "/" + strconv.FormatUint(s.temps.Add(1), 36)
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
}

// tryLock takes the lock on f unless another open file has it. It is held until f is closed.
func tryLock(f *os.File) (bool, error) {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// sameFile reports whether path still names the open file f.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
