package httpcache

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// small is the size up to which a blob is held in memory until it is verified.
const small = 1 << 20

// spool reads all of r, and returns it to be read again; done frees what it takes up.
func spool(r io.Reader, size int64) (body io.Reader, done func(), err error) {
	if size <= small {
		b, err := io.ReadAll(r)
		return bytes.NewReader(b), func() {}, err
	}
	f, err := os.CreateTemp("", "pexpress-upload-*")
	if err != nil {
		return nil, nil, err
	}
	// Without a name nothing is left behind, however the process ends.
	if err := os.Remove(f.Name()); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	_, err = io.Copy(f, r)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return struct{ io.Reader }{f}, func() { f.Close() }, nil
}
