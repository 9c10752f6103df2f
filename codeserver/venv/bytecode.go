package venv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/codeserver/once"
)

// Bytecode of a wheel's module lies where an interpreter would write it, beside the module. It does not say which file it
// was made of, so that it is the same everywhere: Python sets the path that a traceback shows when it loads it. Nor does it
// say when that file was changed (PEP 552, unchecked): the files of an unpacked wheel do not change.

// Fetch brings bytecode of wheels from elsewhere. It calls got with the index of each wheel that it has all of, and the
// content of the files by name, relative to site: "pkg/__pycache__/mod.cpython-311.pyc". got may be called by several
// goroutines, and keeps nothing of the map. After an error of got, or the end of ctx, there is no use in going on.
type Fetch func(ctx context.Context, py *Interpreter, wheels []Wheel, got func(i int, files map[string][]byte) error) error

// Compile makes bytecode of a wheel. It writes that of each of the modules, whose names are relative to site and sorted,
// below out, under the name that Python gives it, and returns those that do not compile. After an error nothing of out is
// used.
type Compile func(ctx context.Context, w Wheel, site, out string, modules []string) (skipped []string, err error)

// A wheel whose bytecode does not come is not waited for longer than it takes to make it. What has begun to come may take
// fetchMost in all once the wheels are unpacked, as long as something comes every fetchPause.
const (
	fetchPause = 500 * time.Millisecond
	fetchMost  = 3 * time.Second
)

// compiled is the content of bytecode.json in an unpacked wheel. A wheel that has it is not looked at again.
type compiled struct {
	Magic   string   `json:"magic"`             // of the Python that the bytecode is for
	Skipped []string `json:"skipped,omitempty"` // modules that do not compile
}

// hasBytecode reports whether a wheel's bytecode for an interpreter has been made, dir being where the wheel is unpacked.
func hasBytecode(dir string, py *Interpreter) bool {
	var c compiled
	b, err := os.ReadFile(filepath.Join(dir, "bytecode.json"))
	return err == nil && json.Unmarshal(b, &c) == nil && c.Magic == py.Magic
}

// oldestCompiled is the first minor version of Python 3 for which bytecode is made.
const oldestCompiled = 8

// compiles reports whether bytecode is made for an interpreter.
func compiles(py *Interpreter) bool {
	var n int
	_, err := fmt.Sscanf(py.Version, "3.%d", &n)
	return err == nil && n >= oldestCompiled && py.Magic != "" && py.Tag != ""
}

// modules returns the names of the modules of an unpacked wheel, relative to site.
func modules(dir string) ([]string, error) {
	site := filepath.Join(dir, "site")
	var names []string
	err := filepath.WalkDir(site, func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && p == site:
			return nil // it has scripts or data only
		case err != nil:
			return err
		case e.IsDir() && e.Name() == pycache:
			return fs.SkipDir
		case e.Type().IsRegular() && isModule(e.Name()):
			rel, err := filepath.Rel(site, p)
			names = append(names, filepath.ToSlash(rel))
			return err
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

const pycache = "__pycache__"

func isModule(name string) bool { return strings.HasSuffix(name, ".py") && name != ".py" }

// bytecodeName is where the bytecode of a module goes, as PEP 3147 says.
func bytecodeName(module, tag string) string {
	return path.Join(path.Dir(module), pycache, strings.TrimSuffix(path.Base(module), ".py")+"."+tag+".pyc")
}

// pending is bytecode of a wheel that lies in tmp.
type pending struct {
	name    string // of the wheel's directory
	dir     string
	skipped []string
}

// adopt moves pending bytecode, which is durable, to its wheels. A wheel is marked when all of its files are there.
func (s *Store) adopt(all []pending, py *Interpreter) error {
	for _, p := range all {
		if err := s.adoptOne(p, py); err != nil {
			return fmt.Errorf("bytecode of wheel %s: %w", p.name, err)
		}
	}
	return nil
}

func (s *Store) adoptOne(p pending, py *Interpreter) error {
	s.mu.Lock() // a wheel that is staged stays where it is meanwhile
	defer s.mu.Unlock()
	dir := s.path(p.name)
	if tmp := s.staged[p.name]; tmp != "" {
		dir = tmp
	}
	if err := moveCaches(p.dir, filepath.Join(dir, "site")); err != nil {
		return err
	}
	b, err := json.Marshal(compiled{py.Magic, p.skipped})
	if err != nil {
		return err
	}
	// Not synced: one that a crash has cut short is as good as none.
	return errors.Join(os.WriteFile(filepath.Join(dir, "bytecode.json"), b, 0o644), os.RemoveAll(p.dir))
}

// moveCaches moves each directory of bytecode below from to its place below site. Where there is one already, because
// versions have run, its files are replaced one by one: a reader sees the old one or the new one.
func moveCaches(from, site string) error {
	return filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() || e.Name() != pycache {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		to := filepath.Join(site, rel)
		// It may come to be there at this moment, too.
		if err := os.Rename(p, to); err == nil {
			return fs.SkipDir
		} else if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
		if st, err := os.Lstat(to); err != nil {
			return err
		} else if !st.IsDir() {
			return fs.SkipDir // a version has put something else there: a symlink is not followed
		}
		files, err := os.ReadDir(p)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Rename(filepath.Join(p, f.Name()), filepath.Join(to, f.Name())); err != nil {
				return err
			}
		}
		return fs.SkipDir
	})
}

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
	files  map[int]map[string]bool // of a wheel that has come, by its place in names
	stats  Fetched
}

// Fetched says what bytecode came from elsewhere.
type Fetched struct{ Files, Bytes int64 }

// beginFetch asks for the bytecode of the wheels that have none yet. It is nil if there is nothing or nobody to ask.
func (s *Store) beginFetch(ctx context.Context, wheels []Wheel, dirs []string, py *Interpreter) *fetching {
	if s.Fetch == nil || !compiles(py) {
		return nil
	}
	f := &fetching{store: s, py: py, done: make(chan struct{}), some: make(chan struct{}, 1), files: map[int]map[string]bool{}}
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
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errTooLate
	}
	dir, err := os.MkdirTemp(f.store.path("tmp"), "bytecode-")
	if err != nil {
		return err
	}
	names := map[string]bool{}
	made := map[string]bool{dir: true}
	for name, data := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if !filepath.IsLocal(filepath.FromSlash(name)) || path.Base(path.Dir(name)) != pycache {
			err = fmt.Errorf("%q is not where bytecode lies", name)
		} else if err = mkdirs(filepath.Dir(p), made); err == nil {
			err = writeFile(p, data, 0o644)
		}
		if err != nil {
			return errors.Join(err, os.RemoveAll(dir))
		}
		names[name] = true
		f.stats.Files++
		f.stats.Bytes += int64(len(data))
	}
	f.files[len(f.got)] = names
	f.got = append(f.got, pending{name: f.names[i], dir: dir})
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
	if err := durable.SyncFS(f.store.path("tmp")); err != nil {
		return Fetched{}, err
	}
	for i := range f.got {
		if err := f.check(i); err != nil {
			return Fetched{}, err
		}
	}
	return f.stats, f.store.adopt(f.got, f.py)
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
func (f *fetching) check(i int) error {
	p, names := &f.got[i], f.files[i]
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
	for _, m := range ms {
		name := bytecodeName(m, f.py.Tag)
		if !names[name] {
			p.skipped = append(p.skipped, m)
		}
		delete(names, name)
	}
	for name := range names {
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
	for _, p := range f.got {
		_ = os.RemoveAll(p.dir)
	}
}

// NoBytecode returns those of the wheels that are unpacked for an interpreter and have no bytecode yet. They are in the order
// of their size: what is small is had soon.
func (s *Store) NoBytecode(wheels []Wheel, py *Interpreter) []Wheel {
	if !compiles(py) {
		return nil
	}
	lacking := slices.DeleteFunc(slices.Clone(wheels), func(w Wheel) bool {
		dir := s.path(wheelDir(w, py.Version))
		return hasBytecode(dir, py) || !exists(filepath.Join(dir, "wheel.json"))
	})
	slices.SortStableFunc(lacking, func(a, b Wheel) int { return a.Digest.Compare(b.Digest) })
	slices.SortStableFunc(lacking, func(a, b Wheel) int { return int(min(1, max(-1, a.Digest.Size()-b.Digest.Size()))) })
	return lacking
}

// flushAfter is how much work may be lost when the process is killed: what was made since is not on stable storage.
const flushAfter = 5 * time.Second

// Fill makes the bytecode of the wheels that are unpacked for an interpreter and have none yet, several at once. Those
// that are gone by then are left out. Keep leaves the wheels alone meanwhile.
func (s *Store) Fill(ctx context.Context, wheels []Wheel, py *Interpreter, workers int, compile Compile) error {
	wheels = s.NoBytecode(wheels, py)
	names := make([]string, len(wheels))
	for i, w := range wheels {
		names[i] = wheelDir(w, py.Version)
	}
	defer s.hold(names)()
	fl := &filling{store: s, py: py, last: time.Now()}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, workers))
	for i, w := range wheels {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			// Two that fill at once make each wheel's once.
			_, err := once.Do(gctx, &s.fills, names[i], func() (struct{}, error) {
				return struct{}{}, fl.wheel(gctx, w, names[i], compile)
			})
			return err
		})
	}
	err := g.Wait()
	return errors.Join(err, ctx.Err(), fl.flush(0))
}

// filling is a Fill under way: what it has made and not moved yet.
type filling struct {
	store *Store
	py    *Interpreter

	mu      sync.Mutex
	last    time.Time
	pending []pending
}

func (f *filling) wheel(ctx context.Context, w Wheel, name string, compile Compile) error {
	dir := f.store.path(name)
	if _, err := readUnpacked(dir); err != nil || hasBytecode(dir, f.py) {
		return nil
	}
	ms, err := modules(dir)
	if err != nil {
		return err
	}
	out, err := os.MkdirTemp(f.store.path("tmp"), "bytecode-")
	if err != nil {
		return err
	}
	var skipped []string
	if len(ms) > 0 {
		skipped, err = compile(ctx, w, filepath.Join(dir, "site"), out, ms)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(out))
	}
	f.mu.Lock()
	f.pending = append(f.pending, pending{name, out, skipped})
	f.mu.Unlock()
	return f.flush(flushAfter)
}

// flush moves to the wheels what was made, with one sync for all of it, unless that was done a moment ago.
func (f *filling) flush(after time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pending) == 0 || time.Since(f.last) < after {
		return nil
	}
	if err := durable.SyncFS(f.store.path("tmp")); err != nil {
		return err
	}
	err := f.store.adopt(f.pending, f.py)
	f.pending, f.last = nil, time.Now()
	return err
}
