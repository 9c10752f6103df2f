package durable

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxRead bounds what ReadFile holds in memory, far above any configuration or lock.
const maxRead = 256 << 20

// Open opens a regular file for reading. A named pipe or a device, which would have the reader wait for ever or never
// come to an end, is an error.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &os.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is no regular file (%s)", st.Mode().Type())}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadFile reads a regular file of a size that fits a configuration.
func ReadFile(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRead+1))
	if err == nil && len(b) > maxRead {
		err = &os.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is larger than %d bytes", maxRead)}
	}
	return b, err
}
