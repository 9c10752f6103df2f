package venv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/merkle"
)

// Fetch brings bytecode of wheels from elsewhere. It calls got with the index of each wheel that it has all of, and the
// content of the files by name, relative to site: "pkg/__pycache__/mod.cpython-311.pyc". got may be called by several
// goroutines, and keeps nothing of the map. After an error of got, or the end of ctx, there is no use in going on.
type Fetch func(ctx context.Context, py *Interpreter, wheels []Wheel, got func(i int, files map[string][]byte) error) error

// A wheel whose bytecode does not come is not waited for longer than it takes to make it. What has begun to come may take
// fetchMost in all once the wheels are unpacked, as long as something comes every fetchPause.
const (
	fetchPause = 500 * time.Millisecond
	fetchMost  = 3 * time.Second
)

// fetching is a Fetch under way.
type fetching struct {
	store  *Store
	py     *Interpreter
	names  []string // of the wheels' directories
	cancel context.CancelFunc
	done   chan struct{}
	some   chan struct{} // something has come

	mu     sync.Mutex
	closed bool
	got    []pending
	stats  Fetched
}

// Fetched says what bytecode came from elsewhere.
type Fetched struct{ Files, Bytes int64 }

// beginFetch asks for the bytecode of the wheels that have none yet. It is nil if there is nothing or nobody to ask.
func (s *Store) beginFetch(ctx context.Context, wheels []Wheel, dirs []string, py *Interpreter) *fetching {
	if s.Fetch == nil || !compiles(py) {
		return nil
	}
	f := &fetching{store: s, py: py, done: make(chan struct{}), some: make(chan struct{}, 1)}
	var lacking []Wheel
	for i, d := range dirs {
		if !hasBytecode(s.path(d), py) {
			lacking, f.names = append(lacking, wheels[i]), append(f.names, d)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	ctx, f.cancel = context.WithCancel(ctx)
	go func() {
		defer close(f.done)
		if err := s.Fetch(ctx, py, lacking, f.add); err != nil {
			f.mu.Lock()
			f.closed = true
			f.mu.Unlock()
		}
	}()
	return f
}

var errTooLate = errors.New("nobody waits for it any more")

// add takes the bytecode of a wheel, which may not be unpacked yet.
func (f *fetching) add(i int, files map[string][]byte) error {
	hashes := make(map[string]string, len(files))
	for name, data := range files {
		hashes[name] = hashOf(data)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errTooLate
	}
	dir, err := os.MkdirTemp(f.store.path("tmp"), "bytecode-")
	if err != nil {
		return err
	}
	made := map[string]bool{dir: true}
	for name, data := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if !filepath.IsLocal(filepath.FromSlash(name)) || path.Base(path.Dir(name)) != pycache {
			err = fmt.Errorf("%q is not where bytecode lies", name)
		} else if err = mkdirs(filepath.Dir(p), made); err == nil {
			err = errors.Join(writeFile(p, data, 0o644), os.Chtimes(p, merkle.ModTime, merkle.ModTime))
		}
		if err != nil {
			return errors.Join(err, os.RemoveAll(dir))
		}
		f.stats.Files++
		f.stats.Bytes += int64(len(data))
	}
	f.got = append(f.got, pending{name: f.names[i], dir: dir, files: hashes})
	select {
	case f.some <- struct{}{}:
	default:
	}
	return nil
}

// end waits until all has come, or nothing comes any more, and moves what has come to the wheels, which are unpacked.
func (f *fetching) end(ctx context.Context) (Fetched, error) {
	if f == nil {
		return Fetched{}, nil
	}
	f.wait(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true // first: whoever is told that it has ended finds it closed
	f.cancel()
	if len(f.got) == 0 {
		return Fetched{}, nil
	}
	if err := f.settle(); err != nil {
		f.discard()
		return Fetched{}, err
	}
	return f.stats, nil
}

// settle moves what has come to the wheels. f.mu is held.
func (f *fetching) settle() error {
	if err := durable.SyncFS(f.store.path("tmp")); err != nil {
		return err
	}
	for i := range f.got {
		if err := f.check(&f.got[i]); err != nil {
			return err
		}
	}
	return f.store.adopt(f.got, f.py)
}

// discard removes what has come. f.mu is held.
func (f *fetching) discard() {
	for _, p := range f.got {
		_ = os.RemoveAll(p.dir)
	}
}

func (f *fetching) wait(ctx context.Context) {
	most, pause := time.NewTimer(fetchMost), time.NewTimer(fetchPause)
	defer most.Stop()
	defer pause.Stop()
	for {
		select {
		case <-f.some:
			pause.Reset(fetchPause)
			continue
		case <-f.done:
		case <-most.C:
		case <-pause.C:
		case <-ctx.Done():
		}
		return
	}
}

// check removes what is not the bytecode of one of the wheel's modules, and notes which modules have none.
func (f *fetching) check(p *pending) error {
	dir := f.store.path(p.name)
	f.store.mu.Lock()
	if tmp := f.store.staged[p.name]; tmp != "" {
		dir = tmp
	}
	f.store.mu.Unlock()
	ms, err := modules(dir)
	if err != nil {
		return err
	}
	others := maps.Clone(p.files)
	for _, m := range ms {
		name := bytecodeName(m, f.py.Tag)
		if p.files[name] == "" {
			p.skipped = append(p.skipped, m)
		}
		delete(others, name)
	}
	for name := range others {
		delete(p.files, name)
		file := filepath.Join(p.dir, filepath.FromSlash(name))
		if err := os.Remove(file); err != nil {
			return err
		}
		_ = os.Remove(filepath.Dir(file)) // it has others perhaps
	}
	return nil
}

// abandon ends a fetch that nobody waits for.
func (f *fetching) abandon() {
	if f == nil {
		return
	}
	f.cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.discard()
}
