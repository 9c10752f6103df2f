package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A change is over when nothing has been written for quietFor: an editor saves in several steps, and a checkout of another
// branch touches a thousand files. One that does not end is acted on after restlessFor.
const (
	quietFor    = 30 * time.Millisecond
	restlessFor = time.Second
)

// A batch is what has changed at one time.
type batch struct {
	paths map[string]bool
	// listing is whether the project's files may be other ones now, or other settings choose them.
	listing bool
	// touched is whether builds read one of the paths.
	touched bool
	began   time.Time
}

// A watcher tells when something changes that a build of the project reads. The kernel names a change by the directory
// that it happened in, so directories are what is watched: those that the last listing of the sources went into.
type watcher struct {
	fs    *fsnotify.Watcher
	ready chan struct{} // one is sent when a change is over

	mu      sync.Mutex
	pending batch
	files   map[string]bool // that builds read; nil while that is not known, when all count
	err     error           // why changes are missed
}

func newWatcher() (*watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch the project: %w", watchError(err))
	}
	n := &watcher{fs: w, ready: make(chan struct{}, 1)}
	go n.run()
	return n, nil
}

func (w *watcher) close() { _ = w.fs.Close() }

// run collects events and waits for them to be over.
func (w *watcher) run() {
	var quiet <-chan time.Time
	var began time.Time
	for {
		counts := false
		select {
		case ev, ok := <-w.fs.Events:
			if !ok {
				return
			}
			counts = w.note(ev)
		case err, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			w.lost(err)
			counts = true
		case <-quiet:
			quiet = nil
			select {
			case w.ready <- struct{}{}:
			default:
			}
		}
		if counts && quiet == nil {
			began = time.Now()
		}
		if counts {
			quiet = time.After(min(quietFor, restlessFor-time.Since(began)))
		}
	}
}

// note takes an event into the pending batch, and reports whether it counts. A write counts if builds read the file: what
// is left out, as a program's own log, may be written to all the time.
func (w *watcher) note(ev fsnotify.Event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	path := filepath.Clean(ev.Name)
	listing := ev.Has(fsnotify.Create) || ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename) || isSetting(filepath.Base(path))
	if !listing && w.files != nil && !w.files[path] {
		return false
	}
	if ev.Has(fsnotify.Create) || ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename) {
		w.forget(path)
	}
	w.add(path, listing)
	return true
}

func (w *watcher) add(path string, listing bool) {
	if w.pending.paths == nil {
		w.pending = batch{paths: map[string]bool{}, began: time.Now()}
	}
	w.pending.paths[path] = true
	w.pending.listing = w.pending.listing || listing
}

// forget ends the watches at and below a path, which is another directory now, or none: a watch stays with a directory
// that is moved, and would go on calling it by its old name.
func (w *watcher) forget(path string) {
	for _, dir := range w.fs.WatchList() {
		if dir == path || strings.HasPrefix(dir, path+"/") {
			_ = w.fs.Remove(dir) // it may be gone, and its watch with it
		}
	}
}

// lost notes that events are missing: then anything may have changed.
func (w *watcher) lost(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !errors.Is(err, fsnotify.ErrEventOverflow) {
		w.err = err
	}
	w.add(".", true)
}

// take returns what has changed since the last take.
func (w *watcher) take() (batch, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, err := w.pending, w.err
	w.pending, w.err = batch{}, nil
	return b, err
}

// watch sets what is watched: directories, and the files that builds read, nil if that is not known. It reports whether
// a directory is new: what was made in it before is in no event.
func (w *watcher) watch(dirs []string, files map[string]bool) (more bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files = files
	want := map[string]bool{}
	for _, d := range dirs {
		want[filepath.Clean(d)] = true
	}
	// Those that go are first: a directory has one watch, by whatever name.
	for _, dir := range w.fs.WatchList() {
		if !want[dir] {
			_ = w.fs.Remove(dir)
		}
		delete(want, dir)
	}
	for _, dir := range slices.Sorted(maps.Keys(want)) {
		err := w.fs.Add(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return more, fmt.Errorf("watch %s: %w", dir, watchError(err))
		}
		more = true
	}
	return more, nil
}

// watchError says what to do about the kernel's limits.
func watchError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: this user watches as many directories as the kernel allows: raise fs.inotify.max_user_watches with sysctl, "+
			"or leave directories out of source.pex with exclude", err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%w: raise fs.inotify.max_user_instances with sysctl, or ulimit -n", err)
	}
	return err
}

// isSetting reports whether a file of that name says what a build reads.
func isSetting(name string) bool {
	switch name {
	case "pyproject.toml", "pexpress.toml", "dagster_cloud.yaml", ".python-version", "setup.py", "setup.cfg", ".gitignore":
		return true
	}
	return strings.HasPrefix(name, "pylock") && strings.HasSuffix(name, ".toml") ||
		strings.HasPrefix(name, "requirements") && strings.HasSuffix(name, ".txt")
}
