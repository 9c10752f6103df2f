// Package venv turns the wheels of a deps.pex into Python virtual environments on one host.
//
// Each wheel is unpacked once per host and minor version of Python. An environment is a directory of symlinks to what
// was unpacked, so that making one takes milliseconds and the bytecode that one environment's interpreter writes is
// there for all others. On disk:
//
//	wheels/<sha256>-<X.Y>/wheel.json   what was unpacked; a directory without it does not count
//	                      site/        purelib and platlib, merged
//	                      bin/         .data/scripts, as they were in the wheel
//	                      include/     .data/headers
//	                      data/        .data/data
//	                      bytecode.json  there is bytecode of all modules in site/
//	                      bytecode-files.json  the hash of each file of it
//	envs/<key>-<X.Y>/env.json          the wheels and the interpreter that it was made for
//	                 pyvenv.cfg, bin/, lib/pythonX.Y/site-packages/, …
//	tmp/                               what is being made or deleted; emptied by Open
//
// What it promises:
//   - A wheel or an environment is visible only when it is whole and on stable storage. What a killed process left is
//     removed by the next Open, as far as it can be.
//   - Wheels are hostile until checked: every member's name, type and size, and its bytes against RECORD. Nothing is
//     ever written outside the wheel's own directory. See ErrWheel.
//   - Files have one modification time everywhere, merkle.ModTime, because bytecode names its source's.
//   - A directory that one wheel alone provides is one symlink; one that several provide, such as a namespace package,
//     is a real directory merged from all of them. Of files that differ, the one of the wheel that sorts last by file
//     name is used and Env.Warnings says so.
//   - No Python runs to make an environment.
//
// What it does not promise: processes of an environment may write to the wheels that they share, if they run as the
// store's user. Shared libraries that look for those of another wheel by a path relative to their own ($ORIGIN/../..)
// do not find them, because the kernel resolves ".." behind the symlink.
package venv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/digest"
)

// The versions of what is on disk; directories of another one are made again.
const (
	layout    = 2 // of unpacked wheels
	envLayout = 3 // of environments
)

// ErrWheel is wrapped by every error that says that a wheel is refused. Its text names the wheel and the member.
var ErrWheel = errors.New("wheel refused")

// Store keeps unpacked wheels and environments of one host below a directory. It is safe for several goroutines; one
// process owns it.
type Store struct {
	dir    string
	envs   singleflight.Group
	wheels singleflight.Group
	fills  singleflight.Group
	checks singleflight.Group

	lookAgain time.Duration

	// Left is why something that a killed process has left could not be removed: it takes space, and is in nobody's way.
	Left error

	// Fetch, if it is not nil, is asked for the bytecode of wheels that are unpacked. Set it before the first Env.
	Fetch Fetch

	mu     sync.Mutex
	busy   map[string]int    // directories that a running Env needs, which Keep leaves alone
	staged map[string]string // unpacked wheel to its place in tmp, not yet on stable storage

	damaged map[string]string    // what was found damaged of a staged wheel that replaces one
	remade  map[string]remade    // by the directory that it is of, or bytecodeOf it
	whole   map[string]time.Time // when the same was known to be as it was made
}

// Wheel names a wheel and the blob that holds its bytes.
type Wheel struct {
	Filename string        `json:"filename"`
	Digest   digest.Digest `json:"digest"`
}

// Open returns the store in dir, which is made if it is not there.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open environments: %w", err)
	}
	// The path stands in scripts, where the shell and Python both read it.
	if strings.ContainsAny(dir, "'\"$`\\\n\r") {
		return nil, fmt.Errorf("open environments: %q holds a character that a script cannot name", dir)
	}
	s := &Store{
		dir: dir, lookAgain: lookAgain, busy: map[string]int{}, staged: map[string]string{},
		damaged: map[string]string{}, remade: map[string]remade{}, whole: map[string]time.Time{},
	}
	for _, name := range []string{"wheels", "envs", "tmp"} {
		// Other users find what they have been told the name of, a digest, and cannot list what else is there.
		if err := errors.Join(os.MkdirAll(s.path(name), 0o755), os.Chmod(s.path(name), 0o711)); err != nil {
			return nil, fmt.Errorf("open environments: %w", err)
		}
	}
	left, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return nil, fmt.Errorf("open environments: %w", err)
	}
	for _, e := range left {
		s.Left = errors.Join(s.Left, os.RemoveAll(s.path("tmp", e.Name())))
	}
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// minor is a version of Python as it stands in names of files and directories.
var minor = regexp.MustCompile(`^3\.(0|[1-9][0-9]{0,2})$`)

// wheelDir is where w lies for a version of Python, relative to the store. Two versions do not share a directory, so
// that dropping one also drops its bytecode.
func wheelDir(w Wheel, version string) string {
	return filepath.Join("wheels", w.Digest.Hash()+"-"+version)
}

func wheelDirs(wheels []Wheel, version string) []string {
	dirs := make([]string, len(wheels))
	for i, w := range wheels {
		dirs[i] = wheelDir(w, version)
	}
	return dirs
}

// envDir is the environment's place, relative to the store. Half of the key's hash is enough to name it, and leaves
// room for the rest of the path within the 127 bytes of a script's first line.
func envDir(key digest.Digest, version string) string {
	return filepath.Join("envs", key.Hash()[:32]+"-"+version)
}

// hold keeps Keep away from the named directories until the function that it returns is called.
func (s *Store) hold(names []string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		s.busy[n]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, n := range names {
			if s.busy[n]--; s.busy[n] == 0 {
				delete(s.busy, n)
			}
		}
	}
}

// publish moves tmp, which is on stable storage, to its name in the store, and returns the path of what stood there before, to be
// removed: what the caller cannot remove, the next Open does. Versions that run in it find the one or the other at every
// moment, where the file system can exchange names, as nearly all can.
func (s *Store) publish(tmp, name string) (old string, err error) {
	final := s.path(name)
	err = os.Rename(tmp, final)
	if errors.Is(err, os.ErrExist) || errors.Is(err, unix.ENOTDIR) {
		if unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE) == nil {
			return tmp, nil
		}
		if old, err = os.MkdirTemp(s.path("tmp"), "trash-"); err == nil {
			err = os.Rename(final, filepath.Join(old, "x"))
		}
		if err == nil {
			if err = os.Rename(tmp, final); err != nil {
				err = errors.Join(err, os.Rename(filepath.Join(old, "x"), final))
			}
		}
	}
	if err != nil {
		return old, fmt.Errorf("publish: %w", err)
	}
	return old, nil
}

// mkdir makes a directory that others may read, whatever the umask.
func mkdir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

// writeFile makes a new file of the given mode, whatever the umask.
func writeFile(path string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// syncDir makes the names in one of the store's directories durable.
func (s *Store) syncDir(name string) error {
	f, err := os.Open(s.path(name))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
