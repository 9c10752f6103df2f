package venv

import (
	"errors"
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

// hashed is how the content of a file stands in what is written of it: hash and size, as in RECORD.
func hashed(hash string, size int64) string { return hash + "," + strconv.FormatInt(size, 10) }

func parseHashed(text string) (recorded, error) {
	hash, size, _ := strings.Cut(text, ",")
	rec, err := parseRecorded(hash, size)
	if err == nil && (rec.algorithm == "" || rec.size < 0) {
		err = errors.New("no hash and size")
	}
	return rec, err
}

// looks reports whether a file looks as it was written: it compares size and time.
func looks(file, want string) bool {
	rec, err := parseHashed(want)
	if err != nil {
		return false
	}
	st, err := os.Lstat(file)
	return err == nil && st.Mode().IsRegular() && readable(st.Mode()) && st.Size() == rec.size && st.ModTime().Equal(merkle.ModTime)
}

// readable reports whether versions of any user can read a file.
func readable(mode fs.FileMode) bool { return mode&0o444 == 0o444 }

// holds reports whether a file has the content that was hashed.
func holds(file, want string, buf []byte) bool {
	rec, err := parseHashed(want)
	if err != nil {
		return false
	}
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || !readable(st.Mode()) || st.Size() != rec.size {
		return false
	}
	h := rec.hasher()
	_, err = io.CopyBuffer(h, struct{ io.Reader }{io.LimitReader(f, rec.size+1)}, buf) // without its WriteTo, which has a buffer of its own
	return err == nil && slices.Equal(h.Sum(nil), rec.sum)
}
