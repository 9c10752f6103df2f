package merkle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/digest"
)

// ErrChanged says that a file was written to while it was being hashed.
var ErrChanged = errors.New("file changed while it was read")

var errIrregular = errors.New("is not a regular file: it has no content to hash")

// Hasher computes digests of files, in parallel, and remembers those of files that have not changed since, the way
// git's index does: by device, inode, size, modification and change time.
//
// A file that was written in the same tick of the clock as it was hashed could be written again without any of these
// changing. So a digest is remembered only when the file's times lie well before the moment it was hashed.
type Hasher struct {
	path  string
	mu    sync.Mutex
	old   map[string]record
	fresh map[string]record
	dirty atomic.Bool

	// Changed, if not nil, is called once: when the first file is met whose digest is not remembered.
	Changed func()
	told    sync.Once
}

// racy is how much older than its hashing a file must be for its digest to be remembered: more than the coarsest
// timestamp granularity of the file systems in use (2 s on FAT).
const racy = 2 * time.Second

// stamp is what tells a changed file from an unchanged one.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

type record struct {
	stamp  stamp
	digest digest.Digest
}

// NewHasher returns a Hasher that remembers in the file at index, or not at all if index is "". An index that is
// damaged or of another version is as good as none.
func NewHasher(index string) (*Hasher, error) {
	h := &Hasher{path: index, old: map[string]record{}, fresh: map[string]record{}}
	if index == "" {
		return h, nil
	}
	b, err := os.ReadFile(index)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read the index of file digests: %w", err)
	default:
		h.old = decodeIndex(b)
	}
	return h, nil
}

// Files returns the digest of each file.
func (h *Hasher) Files(ctx context.Context, paths []string) ([]digest.Digest, error) {
	digests := make([]digest.Digest, len(paths))
	h.mu.Lock()
	if len(h.fresh) == 0 {
		h.fresh = make(map[string]record, len(paths))
	}
	h.mu.Unlock()
	workers := min(2*runtime.GOMAXPROCS(0), len(paths)/64+1)
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range workers {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(paths) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				var err error
				if digests[i], err = h.file(paths[i]); err != nil {
					return err
				}
			}
		})
	}
	return digests, g.Wait()
}

func (h *Hasher) file(path string) (digest.Digest, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return digest.Digest{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return digest.Digest{}, fmt.Errorf("%s %w", path, errIrregular)
	}
	s := stampOf(&st)
	r, ok := h.old[path]
	if !ok || r.stamp != s {
		if h.Changed != nil {
			h.told.Do(h.Changed)
		}
		var settled bool
		var err error
		if r, settled, err = hashFile(path); err != nil {
			return digest.Digest{}, err
		}
		if !settled {
			return r.digest, nil // nothing was learned that may be kept
		}
		h.dirty.Store(true)
	}
	h.mu.Lock()
	h.fresh[path] = r
	h.mu.Unlock()
	return r.digest, nil
}

// hashFile returns the file's record, and whether the file is old enough for the record to be kept.
func hashFile(path string) (record, bool, error) {
	// Without O_NONBLOCK a named pipe, put in the file's place after it was looked at, would be waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return record{}, false, err
	}
	defer f.Close()
	var before, after unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &before); err != nil {
		return record{}, false, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return record{}, false, fmt.Errorf("%s %w", path, errIrregular)
	}
	now := time.Now()
	d, err := digest.FromReader(f)
	if err != nil {
		return record{}, false, fmt.Errorf("hash %s: %w", path, err)
	}
	if err := unix.Fstat(int(f.Fd()), &after); err != nil {
		return record{}, false, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	s, end := stampOf(&before), stampOf(&after)
	linked := before.Nlink != after.Nlink // a build tool stages the file elsewhere: that changes ctime, not the content
	if linked {
		end.ctime = s.ctime
	}
	if s != end || d.Size() != s.size {
		return record{}, false, fmt.Errorf("%w: %s; run the command again", ErrChanged, path)
	}
	limit := now.Add(-racy).UnixNano()
	return record{s, d}, !linked && s.mtime < limit && s.ctime < limit, nil
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}
