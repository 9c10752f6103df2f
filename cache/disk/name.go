package disk

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// area is one of the two directories of named files.
type area string

const (
	blobs   area = "cas"
	actions area = "ac"
)

var areas = [...]area{blobs, actions}

// noun is what people call a file of the area.
func (a area) noun() string {
	if a == actions {
		return "result of action"
	}
	return "blob"
}

// name names a file of the store. The size is part of it, so that a digest with a wrong size finds nothing, rather
// than making a good blob look corrupt, and so that a truncated file is recognised without reading it.
type name struct {
	area   area
	digest digest.Digest
}

// file is HASH-SIZE, with FUNCTION- before it unless that is sha256.
func (n name) file() string { return strings.ReplaceAll(n.digest.String(), "/", "-") }

func (n name) dir(s *Store) string { return s.path(string(n.area), n.digest.Hash()[:2]) }

// path is made in one step: a build asks for every file of a project.
func (n name) path(s *Store) string {
	sum := n.digest.Sum()
	b := make([]byte, 0, len(s.dir)+100)
	b = append(append(append(b, s.dir...), '/'), n.area...)
	b = hex.AppendEncode(append(b, '/'), sum[:1])
	b = append(b, '/')
	if fn := n.digest.Function(); fn != digest.SHA256 {
		b = append(append(b, fn.String()...), '-')
	}
	b = append(hex.AppendEncode(b, sum[:]), '-')
	return string(strconv.AppendInt(b, n.digest.Size(), 10))
}

func (n name) String() string { return n.area.noun() + " " + n.digest.String() }

// parseName reads what file wrote. Files with other names are not the store's and are left alone.
func parseName(a area, file string) (name, bool) {
	d, err := digest.Parse(strings.ReplaceAll(file, "-", "/"))
	return name{a, d}, err == nil && name{a, d}.file() == file
}

// checkDigest refuses the digest that names nothing.
func checkDigest(d digest.Digest) error {
	if d.IsZero() {
		return fmt.Errorf("%w: no digest given", digest.ErrInvalid)
	}
	return nil
}

const (
	// renewAfter is the age of a file's mtime from which on a use of the file renews it. Renewing at every use would
	// turn every read into a write.
	renewAfter = 10 * time.Minute
	// settleTime is how long after its last write a file's directory may still be unsynced: far longer than anyone
	// takes from a rename to the sync after it, or than a kernel holds back what a killed process left unsynced.
	settleTime = 2 * time.Minute
)

// blobState is what a look at a blob's file says.
type blobState struct {
	present bool
	fresh   bool // perhaps not yet durable
}

// look reports whether the blob is there, whole by its size, and renews its time of last use.
func (s *Store) look(n name) (blobState, error) {
	path := n.path(s)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return blobState{}, nil
		}
		return blobState{}, fmt.Errorf("%s: %w", n, &fs.PathError{Op: "lstat", Path: path, Err: err})
	}
	if st.Size != n.digest.Size() {
		return blobState{}, nil
	}
	mtime := time.Unix(st.Mtim.Unix())
	fresh := time.Since(mtime).Abs() < settleTime
	return blobState{present: s.renew(path, mtime), fresh: fresh}, nil
}

// renew sets the time of last use to now where it is old, or in the future by a clock that was wrong. It reports
// false when the file has gone. Other failures only make the order of eviction less exact, and a cache that may be
// read but not written is still of use.
func (s *Store) renew(path string, mtime time.Time) bool {
	if time.Since(mtime).Abs() < renewAfter {
		return true
	}
	return !errors.Is(os.Chtimes(path, time.Time{}, time.Now()), fs.ErrNotExist)
}

// notFound turns the absence of a file into a miss, and passes on every other error.
func notFound(n name, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return cache.NotFound(n.area.noun(), n.digest)
	}
	return fmt.Errorf("%s: %w", n, err)
}
