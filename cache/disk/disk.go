// Package disk is a cache in a directory of this machine. Any number of processes may use it at once, and any of them
// may be killed at any moment.
//
// # Layout
//
//	VERSION                    the format, 1
//	cas/ab/HASH-SIZE           one file a blob; ab are the first two digits of HASH
//	ac/ab/HASH-SIZE            one file an ActionResult, named by its Action, with a checksum
//	pins/NAME                  digests that are never evicted
//	quarantine/                copies that turned out to be corrupt
//	tmp/SESSION/               files being written by one process, which holds a lock on the directory
//	ledger                     how much there is; its lock orders those who change that
//
// # Promises
//
// A file is written under tmp, synced, renamed to its name and the directory synced, so nothing partial is ever
// visible and what Put acknowledged outlives a power failure. Readers take no lock; a blob that is evicted while it is
// being read stays readable to its end.
//
// Blobs are verified as they are read. A copy that is not what its name says is moved to quarantine/ and the error
// wraps digest.ErrMismatch; from then on the blob is absent (cache.ErrNotFound), so that it is fetched or built again.
// A damaged ActionResult is set aside in the same way but reads as absent at once: nothing was promised about it yet,
// and the Action is simply run again.
//
// With a limit, the blobs and ActionResults that were used longest ago are evicted, pinned ones never, even where
// these alone exceed the limit. The time of last use is a file's mtime, which a use renews only once it is older than
// ten minutes. Sizes are those of the contents; what the file system adds for itself, tmp/ and quarantine/ are not
// counted.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/durable"
)

// format is the content of VERSION. It changes when an older program could misread or damage a newer store.
const format = "1\n"

// Options are the choices of the one who opens a Store.
type Options struct {
	// MaxBytes is the size above which what was used longest ago is evicted; 0 means never.
	MaxBytes int64
}

// Store is an open cache directory. It implements cache.CAS, cache.ActionCache, cache.BatchPutter and cache.HashFinder.
type Store struct {
	dir      string
	maxBytes int64
	boot     string
	session  *session
	temps    atomic.Uint64
	// turn lets one goroutine of this process at a time wait for the ledger's lock: each waiter would otherwise hold
	// an operating system thread. Correctness rests on the file lock alone.
	turn chan struct{}
}

var (
	_ cache.CAS         = (*Store)(nil)
	_ cache.ActionCache = (*Store)(nil)
	_ cache.BatchPutter = (*Store)(nil)
	_ cache.HashFinder  = (*Store)(nil)
)

// Open opens the cache in dir and makes it where there is none. It fails when dir cannot be written to.
func Open(dir string, opts Options) (*Store, error) {
	if dir == "" {
		return nil, errors.New("open cache: no directory given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	s := &Store{dir: dir, maxBytes: opts.MaxBytes, boot: bootID(), turn: make(chan struct{}, 1)}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open cache directory %s: %w", dir, s.explain(err))
	}
	return s, nil
}

func (s *Store) open() error {
	isNew, err := s.checkFormat()
	if err != nil {
		return err
	}
	if isNew {
		if err := s.makeDirs(); err != nil {
			return err
		}
	}
	if err := s.sweep(); err != nil {
		return err
	}
	if s.session, err = newSession(s.path("tmp")); err != nil {
		return err
	}
	if !isNew {
		return nil
	}
	// Last, so that a store with a VERSION is complete.
	if err := s.writeFile(s.path("VERSION"), []byte(format)); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// checkFormat reports whether the store is still to be made, and refuses one that it does not understand.
func (s *Store) checkFormat() (isNew bool, err error) {
	b, err := os.ReadFile(s.path("VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if string(b) != format {
		return false, fmt.Errorf("it has format %.20q and this program knows %q: use a newer program or another directory",
			strings.TrimSpace(string(b)), strings.TrimSpace(format))
	}
	return false, nil
}

func (s *Store) makeDirs() error {
	for _, dir := range []string{string(blobs), string(actions), "tmp", "pins", "quarantine"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := durable.TagCache(s.dir); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	_ = syncDir(filepath.Dir(s.dir)) // which this user may not be allowed to open
	return nil
}

// Close removes the Store's temporary directory. A Store that is not closed leaves it to the next one to open.
func (s *Store) Close() error { return s.session.close() }

func (s *Store) path(elem ...string) string {
	return s.dir + "/" + strings.Join(elem, "/")
}

// explain adds to an error of the operating system what the caller can do about it.
func (s *Store) explain(err error) error {
	switch {
	case err == nil || errors.Is(err, cache.ErrFull):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: free some space on the file system of %s, or shrink the cache with 'pexpress cache gc': %w",
			cache.ErrFull, s.dir, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("the cache cannot be written to; make %s a writable directory or choose another: %w", s.dir, err)
	}
	return err
}
