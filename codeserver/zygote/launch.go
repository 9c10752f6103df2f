package zygote

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/sandbox"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// Version is what is to be started. Versions of one Key import the same modules when they start, as far as those are
// not their own.
type Version struct {
	// Key names what the modules depend on: the environment, and what is started in it.
	Key string
	// Location is whose version it is: the next one of the same Location has the same variables, most likely.
	Location string
	Python   string
	Args     []string // for Python: "-m MODULE ..." or "SCRIPT ..."
	Env      []string
	// Own names the variables that differ from version to version: they are set after the fork.
	Own []string
	// Sources are the directories that the version's own modules are found in.
	Sources []string
	// Probe starts the version once more, beside those that run, and returns nil when it has become ready; it is ended
	// then. It is forked by fork, or starts by itself if that is nil. Without Probe nobody looks for what breaks a fork.
	Probe func(ctx context.Context, fork func(worker.ForkRequest) error) error
	// Sandbox returns what a zygote for the version is shut into, a user of its own among it, and its cgroup. It is nil, or
	// returns nil, if versions are not shut in.
	Sandbox func() (*sandbox.Spec, *limits.Group, error)

	names map[string]bool // of its own modules, see own
}

// Launch is a version's start.
type Launch struct {
	pool    *Pool
	cold    bool    // it was told not to fork
	zygote  *Zygote // that forks the version, nil if it starts by itself
	version Version
	learn   string // file of what it imports
	waited  time.Duration
}

// Launch changes a worker's Spec so that the version is forked if it can be, and else by itself. Where no zygote is there
// although it is known what the version will import, one is made first: that takes what the version's own imports would
// take. With cold it is not forked. Call Ready or Failed on the result.
func (p *Pool) Launch(ctx context.Context, v Version, spec *worker.Spec, cold bool) *Launch {
	v.names = v.own()
	p.mu.Lock()
	p.get(v.Key).begin(&v)
	p.mu.Unlock()
	l := &Launch{pool: p, version: v, cold: cold}
	spec.Args = v.Args
	if f, err := os.CreateTemp(p.dir, learnPattern); err == nil {
		l.learn = f.Name()
		f.Close()
	}
	if !cold {
		begin := time.Now()
		l.zygote = p.take(ctx, &v)
		l.waited = time.Since(begin)
	}
	p.countLaunch(l)
	if l.Warm() {
		spec.Fork = l.zygote.Learning(l.learn)
		return l
	}
	spec.Program, spec.Args = v.Python, Cold(p.script, l.learn, v.Args)
	return l
}

// Learn is the file that the version writes down what it imports in, "" if it does not.
func (l *Launch) Learn() string { return l.learn }

// Waited is how long the launch waited for its zygote to import what versions share: 0, nearly, if it was there.
func (l *Launch) Waited() time.Duration { return l.waited }

// Warm reports that the version is forked.
func (l *Launch) Warm() bool { return l.zygote != nil }

// Ready says that the version answers, and which process it is. What it imports, now and for a while, is what the next one
// is forked with.
func (l *Launch) Ready(pid int) {
	p := l.pool
	if l.Warm() {
		p.work.Go(func() {
			if err := l.zygote.copyAhead(pid); err != nil {
				p.log.Debug("nothing is copied ahead for the next version", "key", l.version.Key, "error", err)
			}
		})
	}
	p.mu.Lock()
	w := p.get(l.version.Key)
	suspect := l.cold && w.suspects[l.version.name()]
	delete(w.suspects, l.version.name())
	mended := l.Warm() && w.again
	if mended {
		w.Bad, w.BadAt, w.again = "", time.Time{}, false
	}
	p.mu.Unlock()
	if mended {
		p.log.Info("versions with these dependencies can be forked again", "key", l.version.Key)
		p.save(l.version.Key, w)
	}
	l.compare(w, pid)
	if !l.Warm() {
		l.report(w)
	}
	if suspect {
		p.search(l.version, w)
	} else {
		p.refresh(l.version, w)
	}
	p.after(p.times.late, func(open bool) {
		if open {
			l.report(w)
			p.refreshLater(l.version, w)
		}
		l.forget()
	})
}

// Failed says that the version did not become ready, or, without blame, that nobody waits for it any more or that something
// else than the fork explains it. If it was forked, start it once more by itself: when it comes up then, it is searched for
// what breaks a fork. That the zygote had ended is nobody's fault.
func (l *Launch) Failed(blame bool) {
	l.forget()
	suspect := false
	if l.Warm() && blame {
		select {
		case <-l.zygote.Done():
		default:
			suspect = true
		}
	}
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	w := l.pool.get(l.version.Key)
	if delete(w.suspects, l.version.name()); suspect {
		w.suspects[l.version.name()] = true
	}
}

// Settle says that the version is not started once more, or has been: whatever came of it, nobody waits to see whether it comes
// up by itself.
func (l *Launch) Settle() {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	delete(l.pool.get(l.version.Key).suspects, l.version.name())
}

// report adds what the version has imported to what is known.
func (l *Launch) report(w *warm) {
	if l.learn == "" {
		return
	}
	b, err := readUpTo(l.learn, MaxLearned)
	if err != nil {
		l.pool.log.Warn("what a version imports was not learned", "error", err)
		return
	}
	modules := slices.DeleteFunc(importable(l.version.Args, strings.Fields(string(b))), func(name string) bool {
		return l.version.names[top(name)] || len(name) > maxName
	})
	l.pool.mu.Lock()
	failed := set(w.Failed)
	modules = slices.DeleteFunc(modules, func(name string) bool { return failed[name] })
	changed := w.add(modules) > 0
	l.pool.mu.Unlock()
	if changed {
		l.pool.save(l.version.Key, w)
	}
}

// forget ends the writing down of what the version imports.
func (l *Launch) forget() {
	if l.learn != "" {
		_ = os.Remove(l.learn)
	}
}

// name tells versions of a Key apart.
func (v *Version) name() string { return strings.Join(v.Sources, "\n") }

// shared returns the variables that a zygote has, too: those that no two versions of a location differ in unless somebody
// configured them anew. A module may read any of them when it is imported.
func (v *Version) shared() []string {
	var env []string
	for _, e := range v.Env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.Contains(v.Own, name) {
			env = append(env, e)
		}
	}
	slices.Sort(env)
	return env
}

// own returns the top-level names that are, or may be, modules of the version's own; nil if its sources cannot be read.
func (v *Version) own() map[string]bool {
	own := map[string]bool{}
	for _, dir := range v.Sources {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, e := range entries {
			name, _, _ := strings.Cut(e.Name(), ".")
			own[name] = true
		}
	}
	return own
}
