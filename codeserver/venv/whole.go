package venv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/merkle"
)

func isBytecode(name string) bool {
	return path.Base(path.Dir(name)) == pycache && strings.HasSuffix(name, ".pyc")
}

// openRegular opens a file that has to be one: whoever opens a FIFO waits.
func openRegular(file string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", file)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// readSmall reads a file of the store's own. What it may not be, it is when it is damaged.
func readSmall(file string) ([]byte, error) {
	f, st, err := openRegular(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Size() > maxRecord {
		return nil, fmt.Errorf("%s: larger than %d bytes", file, maxRecord)
	}
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// hashed is how a file stands in what is written of it: hash and size, as in RECORD, and x if it can be executed.
func hashed(hash string, size int64, executable bool) string {
	text := hash + "," + strconv.FormatInt(size, 10)
	if executable {
		text += ",x"
	}
	return text
}

// parseHashed returns that, and the rights to it that versions of any user have at least.
func parseHashed(text string) (recorded, fs.FileMode, error) {
	parts := append(strings.Split(text, ","), "", "")
	rec, err := parseRecorded(parts[0], parts[1])
	if err == nil && (rec.algorithm == "" || rec.size < 0) {
		err = errors.New("no hash and size")
	}
	if parts[2] == "x" {
		return rec, 0o555, err
	}
	return rec, 0o444, err
}

// looks reports whether a file looks as it was written: it compares size and time.
func looks(file, want string) bool {
	rec, rights, err := parseHashed(want)
	if err != nil {
		return false
	}
	st, err := os.Lstat(file)
	return err == nil && st.Mode().IsRegular() && st.Mode()&rights == rights && st.Size() == rec.size && st.ModTime().Equal(merkle.ModTime)
}

// enterable reports whether a path is a directory that versions of any user can look into.
func enterable(dir string) bool {
	st, err := os.Lstat(dir)
	return err == nil && st.IsDir() && st.Mode()&0o555 == 0o555
}

// holds reports whether a file has the content that was hashed.
func holds(file, want string, buf []byte) bool {
	rec, rights, err := parseHashed(want)
	if err != nil {
		return false
	}
	f, st, err := openRegular(file)
	if err != nil {
		return false
	}
	defer f.Close()
	if st.Mode()&rights != rights || st.Size() != rec.size {
		return false
	}
	h := rec.hasher()
	_, err = io.CopyBuffer(h, struct{ io.Reader }{io.LimitReader(f, rec.size+1)}, buf) // without its WriteTo, which has a buffer of its own
	return err == nil && slices.Equal(h.Sum(nil), rec.sum)
}
