package zygote

import (
	"context"
	"maps"
	"slices"
	"time"
)

// take returns the zygote that a version can be forked from, nil if there is none. It makes one where there is none and
// what it is to import is known.
func (p *Pool) take(ctx context.Context, v *Version) *Zygote {
	w, z, make := p.look(v)
	if !make {
		return z
	}
	ctx, cancel := context.WithTimeout(ctx, p.times.wait)
	defer cancel()
	select {
	case w.turn <- true:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return nil
	}
	if w, z, make = p.look(v); !make { // somebody else has made it
		return z
	}
	p.ask(ctx, v.Key, w)
	if !p.knows(w) {
		return nil
	}
	if p.make(ctx, v, w) {
		p.work.Go(func() { p.publish(v.Key, w) })
	}
	_, z, _ = p.look(v)
	return z
}

// look returns the zygote that a version can be forked from, and otherwise whether one should be made for it.
func (p *Pool) look(v *Version) (w *warm, z *Zygote, make bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w = p.get(v.Key)
	switch {
	case w.Bad != "" || w.searching:
	case w.alive():
		if w.fits(v) {
			w.used = time.Now()
			return w, w.zygote, false
		}
	case !w.broken:
		return w, nil, true
	}
	return w, nil, false
}

// refresh has a zygote made in the background for those who come after a version that started by itself.
func (p *Pool) refresh(v Version, w *warm) {
	p.mu.Lock()
	make := !w.making && !w.searching && w.Bad == "" && len(w.suspects) == 0 && !(w.alive() && w.fits(&v))
	w.making = w.making || make
	p.mu.Unlock()
	if make {
		p.work.Go(func() { p.makeSlowly(v, w) })
	}
}

// worthIt is how many modules a zygote must lack to be made anew.
const worthIt = 8

// refreshLater makes the zygote anew if versions import more by now than it has, not too soon after the last time.
func (p *Pool) refreshLater(v Version, w *warm) {
	p.mu.Lock()
	missing := 0
	for _, name := range w.Modules {
		if !w.tried[name] && !w.shadowed[top(name)] {
			missing++
		}
	}
	make := !w.making && !w.searching && w.Bad == "" && w.alive() && w.fits(&v) && missing >= worthIt
	w.making = w.making || make
	pause := time.Until(w.made.Add(min(p.times.remake<<min(w.remakes, 10), maxRemake)))
	if make {
		w.remakes++
	}
	p.mu.Unlock()
	if make {
		p.after(pause, func(bool) { p.work.Go(func() { p.makeSlowly(v, w) }) })
	}
}

// makeSlowly makes the zygote of a key anew, after others that are being made in the background.
func (p *Pool) makeSlowly(v Version, w *warm) {
	defer func() {
		p.mu.Lock()
		w.making = false
		p.mu.Unlock()
	}()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-p.ctx.Done():
		return
	}
	select {
	case w.turn <- true:
		defer func() { <-w.turn }()
	case <-p.ctx.Done():
		return
	}
	if p.make(p.ctx, &v, w) {
		p.publish(v.Key, w)
	}
}

// make makes the zygote of a key, and reports whether it has. The caller has its turn.
func (p *Pool) make(ctx context.Context, v *Version, w *warm) bool {
	p.mu.Lock()
	var modules []string
	for _, name := range w.Modules {
		if !w.shadowed[top(name)] {
			modules = append(modules, name)
		}
	}
	own, leaveOut := v.own(), slices.Sorted(maps.Keys(w.LeftOut))
	p.mu.Unlock()
	modules = slices.DeleteFunc(modules, func(name string) bool { return own[top(name)] })
	z, err := p.zygoteOf(ctx, v, modules, leaveOut)
	if err != nil {
		if ctx.Err() == nil {
			p.log.Warn("no zygote: versions start by themselves", "key", v.Key, "error", err)
		}
		p.mu.Lock()
		w.broken = p.ctx.Err() == nil
		p.mu.Unlock()
		return false
	}
	p.mu.Lock()
	old, kept := w.zygote, p.keys[v.Key] == w && !w.searching && w.Bad == ""
	if kept {
		w.zygote, w.env, w.has, w.top = z, v.shared(), set(z.Modules), topLevel(z.Modules)
		w.tried, w.made, w.used, w.broken = set(modules), time.Now(), time.Now(), false
		w.prune(modules)
	} else {
		old = z
	}
	p.mu.Unlock()
	if old != nil {
		old.Close()
	}
	if kept {
		p.save(v.Key, w)
	}
	return kept
}

// prune forgets those modules that a zygote could not import, so that it is not made anew for them. p.mu is held.
func (w *warm) prune(tried []string) {
	failed := map[string]bool{}
	for _, name := range tried {
		if !w.has[name] && w.LeftOut[top(name)] == "" {
			failed[name] = true
		}
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
