package zygote

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// take returns the zygote that a version can be forked from, nil if there is none. It makes one where there is none and
// what it is to import is known.
func (p *Pool) take(ctx context.Context, v *Version) *Zygote {
	w, pt, z := p.look(v)
	if pt == nil {
		return z
	}
	ctx, cancel := context.WithTimeout(ctx, p.times.wait)
	defer cancel()
	select {
	case pt.turn <- true:
		defer func() { <-pt.turn }()
	case <-ctx.Done():
		return nil
	}
	if _, without, z := p.look(v); without != pt { // somebody else has made it
		return z
	}
	p.ask(ctx, v.Key, w)
	if !p.knows(w) {
		return nil
	}
	if p.make(ctx, v, w, pt) {
		p.work.Go(func() { p.publish(v.Key, w, pt) })
	}
	_, _, z = p.look(v)
	return z
}

// look returns the zygote that a version can be forked from, and otherwise, if one should be made for it, the parent without one.
func (p *Pool) look(v *Version) (w *warm, without *parent, z *Zygote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w = p.get(v.Key)
	pt := w.of(v)
	switch {
	case pt == nil || w.isBad(time.Now()) || w.searching:
	case pt.alive():
		if pt.fits(v) {
			pt.used = time.Now()
			return w, nil, pt.zygote
		}
	case !pt.broken:
		return w, pt, nil
	}
	return w, nil, nil
}

// refresh has a zygote made in the background for those who come after a version that started by itself, or one whose zygote
// has used up its share of the memory.
func (p *Pool) refresh(v Version, w *warm) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt := w.of(&v)
	if pt == nil || pt.making || w.searching || w.isBad(time.Now()) || len(w.suspects) > 0 {
		return
	}
	old := pt.zygote
	full := old != nil && old.full()
	needed := func() bool { return !pt.alive() || !pt.fits(&v) || full && pt.zygote == old }
	if !needed() {
		return
	}
	pt.making = true
	p.work.Go(func() { p.makeSlowly(v, w, pt, &pt.making, needed) })
}

// worthIt is how many modules a zygote must lack to be made anew.
const worthIt = 8

// refreshLater makes the zygote anew if versions import more by now than it has, not too soon after the last time.
func (p *Pool) refreshLater(v Version, w *warm) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt := w.of(&v)
	needed := func() bool { return pt.alive() && pt.fits(&v) && w.missing(pt) >= worthIt }
	if pt == nil || pt.due || w.searching || w.isBad(time.Now()) || !needed() {
		return
	}
	pause := time.Until(pt.made.Add(min(p.times.remake<<min(pt.remakes, 10), maxRemake)))
	pt.due = true
	pt.remakes++
	p.after(pause, func(bool) { p.work.Go(func() { p.makeSlowly(v, w, pt, &pt.due, needed) }) })
}

// missing returns how many modules have been learned of that a zygote was not told to import. p.mu is held.
func (w *warm) missing(pt *parent) (n int) {
	for _, name := range w.Modules {
		if !pt.tried[name] && !pt.shadowed[top(name)] {
			n++
		}
	}
	return n
}

// makeSlowly makes a zygote anew, after others that are being made in the background, if it is needed still: a version may
// have had one made meanwhile. That it is about to is noted until it has ended.
func (p *Pool) makeSlowly(v Version, w *warm, pt *parent, noted *bool, needed func() bool) {
	defer func() {
		p.mu.Lock()
		*noted = false
		p.mu.Unlock()
	}()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-p.ctx.Done():
		return
	}
	select {
	case pt.turn <- true:
		defer func() { <-pt.turn }()
	case <-p.ctx.Done():
		return
	}
	p.mu.Lock()
	still := needed()
	p.mu.Unlock()
	if still && p.make(p.ctx, &v, w, pt) {
		p.publish(v.Key, w, pt)
	}
}

// make makes a zygote, and reports whether it has. The caller has its turn.
func (p *Pool) make(ctx context.Context, v *Version, w *warm, pt *parent) bool {
	p.mu.Lock()
	var modules []string
	for _, name := range w.Modules {
		if !pt.shadowed[top(name)] {
			modules = append(modules, name)
		}
	}
	leaveOut := slices.Sorted(maps.Keys(w.LeftOut))
	repairs := p.repairs
	p.mu.Unlock()
	modules = slices.DeleteFunc(modules, func(name string) bool { return v.names[top(name)] })
	z, err := p.zygoteOf(ctx, v, modules, leaveOut)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return false // by who deploys, or by the pool's end: it says nothing of the next one
	}
	if err != nil {
		p.log.Warn("no zygote: versions start by themselves", "key", v.Key, "error", err)
		p.mu.Lock()
		pt.broken = p.repairs == repairs
		p.mu.Unlock()
		return false
	}
	p.mu.Lock()
	end := []*Zygote{z}
	kept := p.keys[v.Key] == w && w.of(v) == pt && !w.searching && !w.isBad(time.Now()) && p.repairs == repairs
	if kept {
		end[0] = pt.zygote
		pt.zygote, pt.has, pt.top = z, set(z.Modules), topLevel(z.Modules)
		pt.tried, pt.made, pt.used, pt.broken = set(modules), time.Now(), time.Now(), false
		w.prune(modules)
		end = append(end, w.forget()...)
	}
	p.mu.Unlock()
	closeAll(end)
	if kept {
		p.save(v.Key, w)
	}
	return kept
}

// prune forgets those modules that no zygote could import: they are versions' own. What one with other variables has imported
// is of the dependencies. p.mu is held.
func (w *warm) prune(tried []string) {
	failed := map[string]bool{}
	for _, name := range tried {
		if w.LeftOut[top(name)] == "" {
			failed[name] = true
		}
	}
	for _, pt := range w.parents {
		maps.DeleteFunc(failed, func(name string, _ bool) bool { return pt.has[name] })
	}
	if len(w.LeftOut) > 0 { // some may be missing since they import what is left out
		return
	}
	w.Modules = slices.DeleteFunc(w.Modules, func(name string) bool { return failed[name] })
	if w.Failed = append(w.Failed, slices.Sorted(maps.Keys(failed))...); len(w.Failed) > maxModules {
		w.Failed = w.Failed[:maxModules]
	}
}

// zygoteOf starts a zygote that has those modules which can be imported without any of the packages that are left out.
func (p *Pool) zygoteOf(ctx context.Context, v *Version, modules, leaveOut []string) (*Zygote, error) {
	c := Config{Python: v.Python, Script: p.script, Env: v.shared(), Modules: modules, LeaveOut: leaveOut}
	for {
		if v.Sandbox != nil {
			var err error
			if c.Sandbox, c.Group, err = v.Sandbox(); err != nil {
				return nil, err
			}
		}
		z, err := Start(ctx, c)
		if err != nil || len(leaveOut) == 0 {
			return z, err
		}
		// A module that has failed half-way has left something behind: the zygote is another process, that tries none.
		rest := whole(c.Modules, set(z.Modules))
		if len(rest) == len(c.Modules) {
			return z, nil
		}
		z.Close()
		c.Modules = rest
	}
}

// whole returns those modules that were imported together with all packages that they are in.
func whole(modules []string, imported map[string]bool) []string {
	return slices.DeleteFunc(slices.Clone(modules), func(name string) bool {
		for i, c := range name {
			if c == '.' && !imported[name[:i]] {
				return true
			}
		}
		return !imported[name]
	})
}
