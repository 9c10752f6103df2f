package venv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/codeserver/once"
)

// Compile makes bytecode of a wheel. It writes that of each of the modules, whose names are relative to site and sorted,
// below out, under the name that Python gives it, and returns those that do not compile. After an error nothing of out is
// used.
type Compile func(ctx context.Context, w Wheel, site, out string, modules []string) (skipped []string, err error)

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
// that are gone by then are left out. Of those that are damaged none is made, which is an error once the others are done. Keep
// leaves the wheels alone meanwhile.
func (s *Store) Fill(ctx context.Context, wheels []Wheel, py *Interpreter, workers int, compile Compile) error {
	wheels = s.NoBytecode(wheels, py)
	names := wheelDirs(wheels, py.Version)
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
	return errors.Join(err, ctx.Err(), fl.flush(0), errors.Join(fl.damaged...))
}

// filling is a Fill under way: what it has made and not moved yet.
type filling struct {
	store *Store
	py    *Interpreter

	mu      sync.Mutex
	last    time.Time
	pending []pending
	damaged []error
}

func (f *filling) wheel(ctx context.Context, w Wheel, name string, compile Compile) error {
	dir := f.store.path(name)
	if _, err := readUnpacked(dir); err != nil || hasBytecode(dir, f.py) {
		return nil
	}
	of, err := os.Stat(filepath.Join(dir, "wheel.json"))
	if err != nil {
		return err
	}
	// It is used as long as the wheel is, and by other hosts.
	file, err := damagedFile(ctx, dir, f.store.known(name))
	if err != nil {
		return err
	}
	if file != "" {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.damaged = append(f.damaged, fmt.Errorf("%s of %s is not as it was unpacked", strings.TrimPrefix(file, "site/"), w.Filename))
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
	files, err := hashFiles(out)
	if err != nil {
		return errors.Join(err, os.RemoveAll(out))
	}
	f.mu.Lock()
	f.pending = append(f.pending, pending{name, out, skipped, files, of})
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
