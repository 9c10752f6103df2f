package zygote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pexpress/pexpress/codeserver/worker"
)

// Bounds of a search.
const (
	searchTime  = 15 * time.Minute
	searchTries = 40
	maxCulprits = 4
	// maxFlukes is how often a fork may fail that succeeds when it is tried again.
	maxFlukes = 3
)

// search looks in the background for what has kept a version from coming up that was forked, and does by itself: top-level
// packages that must not be imported before the fork. Until it ends versions of that Key start by themselves.
func (p *Pool) search(v Version, w *warm) {
	p.mu.Lock()
	if w.searching || w.isBad(time.Now()) {
		p.mu.Unlock()
		return
	}
	again, why := w.again, w.Bad
	w.searching, w.again = !again, false
	end := w.end()
	if again {
		w.BadAt = time.Now()
	}
	p.mu.Unlock()
	closeAll(end)
	if again { // it was searched before, in vain
		p.save(v.Key, w)
		p.log.Error("versions with these dependencies still do not come up when they are forked", "key", v.Key, "reason", why)
		return
	}
	p.log.Warn("a version did not come up when it was forked, and did by itself: looking for the module that it takes", "key", v.Key)
	p.work.Go(func() {
		s := &search{pool: p, version: v, known: w}
		culprits, err := s.run()
		p.conclude(v, w, culprits, err)
	})
}

// badFor is how long it holds that versions cannot be forked.
const badFor = 24 * time.Hour

// isBad reports whether it holds that versions are not forked at all. p.mu is held.
func (w *warm) isBad(now time.Time) bool {
	if w.Bad != "" && now.Sub(w.BadAt) >= badFor {
		w.again = true
	}
	return w.Bad != "" && !w.again
}

// conclude acts on what a search has found.
func (p *Pool) conclude(v Version, w *warm, culprits []string, err error) {
	if p.ctx.Err() != nil {
		return
	}
	const why = "a version did not come up when it was imported before the fork"
	unclear := errors.Is(err, errUnclear)
	p.mu.Lock()
	w.searching = false
	if errors.Is(err, errFluke) {
		if w.flukes++; w.flukes < maxFlukes {
			err = nil
		}
	}
	if err != nil && !unclear {
		w.Bad, w.BadAt = reason(err.Error()), time.Now()
	}
	for _, name := range culprits {
		w.leaveOut(name, why)
	}
	p.mu.Unlock()
	if unclear {
		p.log.Warn("the search has found nothing, since the version does not come up by itself either", "key", v.Key)
		return
	}
	p.save(v.Key, w)
	if err != nil {
		p.log.Error("versions with these dependencies are not forked any more", "key", v.Key, "reason", err)
		return
	}
	p.log.Warn("versions are forked again", "key", v.Key, "left out", culprits)
	p.refresh(v, w)
}

// Why nothing was found.
var (
	errFluke   = errors.New("versions come up when they are forked only sometimes")
	errUnclear = errors.New("the version does not come up by itself")
	errTries   = fmt.Errorf("in %d tries within %s it did not show which module it takes", searchTries, searchTime)
)

// search is a search for the packages that keep a version from coming up.
type search struct {
	pool     *Pool
	version  Version
	known    *warm
	modules  []string
	leaveOut []string // before the search
	tries    int
	had      map[string]bool // packages in the zygote tried last
}

func (s *search) run() (culprits []string, err error) {
	p := s.pool
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
	if s.version.Probe == nil {
		return nil, errTries
	}
	ctx, cancel := context.WithTimeout(p.ctx, searchTime)
	defer cancel()
	p.mu.Lock()
	s.modules, s.leaveOut = slices.Clone(s.known.Modules), slices.Sorted(maps.Keys(s.known.LeftOut))
	p.mu.Unlock()
	s.modules = slices.DeleteFunc(s.modules, func(name string) bool { return s.version.names[top(name)] })
	culprits, err = s.find(ctx)
	if err != nil && !errors.Is(err, errFluke) && s.version.Probe(p.ctx, nil) != nil {
		err = errUnclear // its sources have gone, perhaps
	}
	return culprits, err
}

// find returns packages without which the version comes up.
func (s *search) find(ctx context.Context) (culprits []string, err error) {
	ok, err := s.passes(ctx, nil)
	if err != nil {
		return nil, err
	}
	if ok {
		return nil, errFluke
	}
	all := s.packages()
	if ok, err = s.passes(ctx, all); err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("a version does not come up when it is forked, whatever was imported before")
	}
	for len(culprits) < maxCulprits {
		rest := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(culprits, name) })
		one, err := s.narrow(ctx, culprits, rest)
		if err != nil {
			return nil, err
		}
		culprits = append(culprits, one)
		if ok, err = s.passes(ctx, culprits); ok || err != nil {
			return culprits, err
		}
	}
	return nil, fmt.Errorf("it takes more than %d of the modules that versions import", maxCulprits)
}

// narrow returns one of the packages: the version comes up if all of them are left out beside others, and does not if
// none is.
func (s *search) narrow(ctx context.Context, others, all []string) (string, error) {
	low, high := 0, len(all) // it fails without the first low ones, and comes up without the first high
	for high-low > 1 {
		middle := (low + high) / 2
		ok, err := s.passes(ctx, slices.Concat(others, all[:middle]))
		if err != nil {
			return "", err
		}
		if ok {
			high = middle
		} else {
			low = middle
		}
	}
	found := all[high-1]
	// Without it those that import it were left out as well: it may be one of them.
	if _, err := s.passes(ctx, others); err != nil {
		return "", err
	}
	before := s.had
	if _, err := s.passes(ctx, slices.Concat(others, []string{found})); err != nil {
		return "", err
	}
	var above []string
	for _, name := range all {
		if before[name] && !s.had[name] && name != found {
			above = append(above, name)
		}
	}
	if len(above) == 0 || len(above) >= len(all) {
		return found, nil
	}
	if ok, err := s.passes(ctx, slices.Concat(others, above)); err != nil || !ok {
		return found, err
	}
	return s.narrow(ctx, others, above)
}

// packages returns the top-level names of the modules, in the order of their first imports: what imports another comes
// first.
func (s *search) packages() []string {
	var all []string
	for _, name := range s.modules {
		if first := top(name); !slices.Contains(s.leaveOut, first) {
			all = append(all, first)
		}
	}
	return unique(all)
}

// passes reports whether the version comes up when it is forked from a zygote that leaves these packages out.
func (s *search) passes(ctx context.Context, without []string) (bool, error) {
	if s.tries++; s.tries > searchTries || ctx.Err() != nil {
		return false, errTries
	}
	z, err := s.pool.zygoteOf(ctx, &s.version, s.modules, slices.Concat(s.leaveOut, without))
	if err != nil {
		if ctx.Err() != nil {
			return false, errTries
		}
		return false, nil // nor can it be forked from
	}
	defer z.Close()
	s.had = topLevel(z.Modules)
	err = s.version.Probe(ctx, func(r worker.ForkRequest) error { return z.Fork(r) })
	return err == nil, nil
}
