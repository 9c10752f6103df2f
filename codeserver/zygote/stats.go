package zygote

import (
	"maps"
	"time"
)

// LeftOut says what is not imported in the zygotes of a key, each with why, and why its versions are not forked at all.
func (p *Pool) LeftOut(key string) (packages map[string]string, unforkable string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.get(key)
	if w.isBad(time.Now()) {
		unforkable = w.Bad
	}
	return maps.Clone(w.LeftOut), unforkable
}

// Stats says what a pool has and has done.
type Stats struct {
	Zygotes []int // pids
	Forked  int64 // versions
	// Missed are versions that started by themselves, by why they were not forked.
	Missed map[string]int64
}

// Why a version was not forked.
const (
	missRetry   = "retry"      // forked it had not become ready
	missUnknown = "unknown"    // what it imports was not known, or its zygote was not ready in time
	missUnlike  = "unlike"     // a module of its own does not go with the zygote
	missSearch  = "searching"  // it is being looked for what breaks a fork
	missBroken  = "broken"     // no zygote could be made
	missBad     = "unforkable" // versions with its dependencies do not bear it
)

type counts struct {
	forked int64
	missed map[string]int64
}

// countLaunch counts a version in that is about to start.
func (p *Pool) countLaunch(l *Launch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.Warm() {
		p.count.forked++
		return
	}
	why := missUnknown
	w := p.get(l.version.Key)
	switch pt := w.of(&l.version); {
	case l.cold:
		why = missRetry
	case w.isBad(time.Now()):
		why = missBad
	case w.searching:
		why = missSearch
	case pt == nil: // the location has begun another since
	case pt.alive():
		why = missUnlike
	case pt.broken:
		why = missBroken
	}
	if p.count.missed == nil {
		p.count.missed = map[string]int64{}
	}
	p.count.missed[why]++
}

// Stats returns what the pool has and has done.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Forked: p.count.forked, Missed: maps.Clone(p.count.missed)}
	for _, w := range p.keys {
		for _, pt := range w.parents {
			if pt.alive() {
				s.Zygotes = append(s.Zygotes, pt.zygote.PID())
			}
		}
	}
	return s
}
