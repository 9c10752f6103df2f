package zygote

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/sandbox"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// Version is what is to be started. Versions of one Key import the same modules when they start, as far as those are
// not their own.
type Version struct {
	// Key names what the modules depend on: the environment, and what is started in it.
	Key    string
	Python string
	Args   []string // for Python: "-m MODULE ..." or "SCRIPT ..."
	Env    []string
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
}

// Exchange is how hosts tell each other what versions import.
type Exchange interface {
	// Fetch returns what is known of a key, nil if nothing is.
	Fetch(ctx context.Context, key string) ([]byte, error)
	Publish(ctx context.Context, key string, learned []byte) error
}

// Pool keeps a zygote for each Key that versions were started of.
type Pool struct {
	dir, script string
	exchange    Exchange // nil if there is none
	log         *slog.Logger
	times       times
	after       func(time.Duration, func(open bool)) // calls it then, or when the pool is closed
	ctx         context.Context                      //nolint:containedctx // ends with the pool; what runs in the background runs in it
	cancel      context.CancelFunc
	work, late  sync.WaitGroup

	mu    sync.Mutex
	keys  map[string]*warm
	count counts
	slots chan struct{} // one zygote is made in the background at a time: it takes a processor from those who serve
}

// times are how long things take; tests have less patience.
type times struct {
	wait   time.Duration // a version waits so long for its zygote; then it starts by itself
	late   time.Duration // what a version imports so long after it became ready is learned, too
	remake time.Duration // between two zygotes of a key, of which the later has more modules; twice as long each time
}

var defaultTimes = times{wait: 30 * time.Second, late: time.Minute, remake: time.Minute}

// maxRemake is the longest that a zygote waits to be made anew with what was learned since.
const maxRemake = time.Hour

// warm is what is known of one Key.
type warm struct {
	record           // is in a file, too
	asked  bool      // the exchange was
	theirs []byte    // what the exchange has, as far as is known
	turn   chan bool // held by who makes a zygote

	zygote    *Zygote
	env       []string        // of the zygote
	tried     map[string]bool // the modules that it was told to import
	has       map[string]bool // those in it
	top       map[string]bool // their top-level names
	used      time.Time
	made      time.Time
	remakes   int
	making    bool            // in the background, or about to
	broken    bool            // the last one could not be made
	searching bool            // for what breaks a fork: none is forked meanwhile
	flukes    int             // a fork failed, and the same succeeded later
	suspects  map[string]bool // versions that did not come up when they were forked
	shadowed  map[string]bool // top-level names that versions have modules of their own of
}

// maxIdle is how long a zygote waits for the next version.
const maxIdle = 6 * time.Hour

// learnPattern is for the files that versions write down in what they import.
const learnPattern = "learn-*"

// OpenPool opens the pool whose directory is dir.
func OpenPool(dir string, exchange Exchange, log *slog.Logger) (*Pool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, pattern := range []string{learnPattern, "*.bad"} {
		stale, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, path := range stale {
			_ = os.Remove(path)
		}
	}
	script, err := Script(dir)
	if err != nil {
		return nil, err
	}
	p := &Pool{
		dir: dir, script: script, exchange: exchange, log: log, times: defaultTimes,
		keys: map[string]*warm{}, slots: make(chan struct{}, 1),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.after = p.later
	return p, nil
}

// Launch is a version's start.
type Launch struct {
	pool    *Pool
	cold    bool    // it was told not to fork
	zygote  *Zygote // that forks the version, nil if it starts by itself
	version Version
	learn   string // file of what it imports
}

// Launch changes a worker's Spec so that the version is forked if it can be, and else by itself. Where no zygote is there
// although it is known what the version will import, one is made first: that takes what the version's own imports would
// take. With cold it is not forked. Call Ready or Failed on the result.
func (p *Pool) Launch(ctx context.Context, v Version, spec *worker.Spec, cold bool) *Launch {
	l := &Launch{pool: p, version: v, cold: cold}
	spec.Args = v.Args
	if f, err := os.CreateTemp(p.dir, learnPattern); err == nil {
		l.learn = f.Name()
		f.Close()
	}
	if !cold {
		l.zygote = p.take(ctx, &v)
	}
	p.countLaunch(l)
	if l.Warm() {
		spec.Fork = l.zygote.Learning(l.learn)
		return l
	}
	spec.Program, spec.Args = v.Python, Cold(p.script, l.learn, v.Args)
	return l
}

// Cold returns the arguments for Python that run args without a zygote, and learn nothing.
func (p *Pool) Cold(args []string) []string { return Cold(p.script, "", args) }

// Learn is the file that the version writes down what it imports in, "" if it does not.
func (l *Launch) Learn() string { return l.learn }

// Script is the program that starts versions.
func (p *Pool) Script() string { return p.script }

// Warm reports that the version is forked.
func (l *Launch) Warm() bool { return l.zygote != nil }

// Ready says that the version answers. What it imports, now and for a while, is what the next one is forked with.
func (l *Launch) Ready() {
	p := l.pool
	p.mu.Lock()
	w := p.get(l.version.Key)
	suspect := l.cold && w.suspects[l.version.name()]
	delete(w.suspects, l.version.name())
	p.mu.Unlock()
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

// Failed says that the version did not become ready, or, without blame, that nobody waits for it any more. If it was
// forked, start it once more by itself: when it comes up then, it is searched for what breaks a fork. That the zygote had
// ended is nobody's fault.
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
	own := l.version.own()
	modules := slices.DeleteFunc(importable(l.version.Args, strings.Fields(string(b))), func(name string) bool {
		return own[top(name)] || len(name) > maxName
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

// fits reports whether the version can be forked from the zygote that there is: it has the same environment, and no module
// that is there stands for one of the version's own. p.mu is held.
func (w *warm) fits(v *Version) bool {
	if !slices.Equal(w.env, v.shared()) {
		return false
	}
	own := v.own()
	ok := own != nil
	for name := range own {
		if w.top[name] {
			w.shadowed[name], ok = true, false
		}
	}
	return ok
}

// alive reports whether there is a zygote. p.mu is held.
func (w *warm) alive() bool {
	if w.zygote == nil {
		return false
	}
	select {
	case <-w.zygote.Done():
		return false
	default:
		return true
	}
}

// topLevel returns the first parts of modules' names, and what the interpreter itself would look for.
func topLevel(modules []string) map[string]bool {
	all := map[string]bool{"sitecustomize": true, "usercustomize": true}
	for _, name := range modules {
		all[top(name)] = true
	}
	return all
}

// later calls f after some time, or with false when the pool is closed before.
func (p *Pool) later(d time.Duration, f func(open bool)) {
	p.late.Add(1)
	var once sync.Once
	call := func(open bool) {
		once.Do(func() {
			defer p.late.Done()
			f(open && p.ctx.Err() == nil)
		})
	}
	stop := context.AfterFunc(p.ctx, func() { call(false) })
	time.AfterFunc(d, func() {
		stop()
		call(true)
	})
}

// Keep ends the zygotes of other keys than these, and those that nobody has needed for long, and forgets what is known of
// other keys.
func (p *Pool) Keep(keys map[string]bool) error {
	p.mu.Lock()
	var end []*Zygote
	kept := map[string]bool{}
	for key := range keys {
		kept[filepath.Base(p.path(key))] = true
	}
	for key, w := range p.keys {
		if keys[key] && (w.zygote == nil || time.Since(w.used) < maxIdle) {
			continue
		}
		if w.zygote != nil {
			end = append(end, w.zygote)
			w.zygote = nil
		}
		if !keys[key] {
			delete(p.keys, key)
		}
	}
	p.mu.Unlock()
	for _, z := range end {
		z.Close()
	}
	entries, err := os.ReadDir(p.dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), recordSuffix) && !kept[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(p.dir, e.Name())))
		}
	}
	return err
}

// Wait returns when no zygote is being made.
func (p *Pool) Wait() { p.work.Wait() }

// Close ends all zygotes. Versions go on.
func (p *Pool) Close() {
	p.cancel()
	p.late.Wait()
	p.work.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.keys {
		if w.zygote != nil {
			w.zygote.Close()
		}
	}
	p.keys = map[string]*warm{}
}
