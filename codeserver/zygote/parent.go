package zygote

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// parent is the zygote of one environment, and what there is to know of it. A module may read any variable when it is
// imported, and some read all, as tqdm does: so those that are forked from a zygote have its variables, but for their Own.
type parent struct {
	turn    chan bool       // held by who makes the zygote
	zygote  *Zygote         // nil if there is none
	tried   map[string]bool // the modules that it was told to import
	has     map[string]bool // those in it
	top     map[string]bool // their top-level names
	used    time.Time
	made    time.Time
	remakes int
	making  bool // in the background
	due     bool // to be made anew in the background, after a pause
	broken  bool // the last one could not be made

	shadowed map[string]bool // top-level names that its versions have modules of their own of
}

// maxParents is how many zygotes a Key has. Locations that differ in their variables have one each, up to then.
const maxParents = 8

// environment is what tells a Key's zygotes apart.
func (v *Version) environment() string { return strings.Join(v.shared(), "\x00") }

// begin notes that a version is about to start, whose environment is its location's from now on. p.mu is held.
func (w *warm) begin(v *Version) {
	env := v.environment()
	w.latest[v.Location] = env
	if w.parents[env] == nil {
		w.parents[env] = &parent{turn: make(chan bool, 1), used: time.Now(), shadowed: map[string]bool{}}
	}
}

// of returns the parent of a version, nil if its location's latest one has another and no other location's has it. p.mu is
// held.
func (w *warm) of(v *Version) *parent { return w.parents[v.environment()] }

// forget removes the parents that no location's next version is likely to have, and returns their zygotes, to be closed.
// p.mu is held.
func (w *warm) forget() (end []*Zygote) {
	needed := map[string]bool{}
	for _, env := range w.latest {
		needed[env] = true
	}
	oldest := slices.SortedFunc(maps.Keys(w.parents), func(a, b string) int { return w.parents[a].used.Compare(w.parents[b].used) })
	alive := 0
	for _, env := range slices.Backward(oldest) {
		pt := w.parents[env]
		if pt.alive() {
			alive++
		}
		if needed[env] && alive <= maxParents {
			continue
		}
		if pt.zygote != nil {
			end = append(end, pt.zygote)
			pt.zygote = nil
		}
		if !needed[env] {
			delete(w.parents, env)
		}
	}
	return end
}

// fits reports whether a version can be forked from the zygote: no module that is there stands for one of the version's
// own. p.mu is held.
func (pt *parent) fits(v *Version) bool {
	ok := v.names != nil
	for name := range v.names {
		if pt.top[name] {
			pt.shadowed[name], ok = true, false
		}
	}
	return ok
}

// alive reports whether there is a zygote. p.mu is held.
func (pt *parent) alive() bool {
	if pt.zygote == nil {
		return false
	}
	select {
	case <-pt.zygote.Done():
		return false
	default:
		return true
	}
}
