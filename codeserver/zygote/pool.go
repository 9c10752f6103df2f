package zygote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pexpress/pexpress/cache/durable"
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
}

// Pool keeps a zygote for each Key that versions were started of.
type Pool struct {
	dir, script string
	log         *slog.Logger
	ctx         context.Context //nolint:containedctx // ends with the pool; what runs in the background runs in it
	cancel      context.CancelFunc
	work        sync.WaitGroup

	mu    sync.Mutex
	keys  map[string]*warm
	slots chan struct{} // one zygote is made at a time: it takes a processor from those who serve
}

// warm is what is known of one Key.
type warm struct {
	zygote  *Zygote
	env     []string        // of the zygote
	top     map[string]bool // top-level names of the modules in it
	used    time.Time
	making  bool
	suspect bool // a version did not come up when it was forked
	bad     bool // and did by itself: none is forked any more. There is a file that says so.
}

// maxIdle is how long a zygote waits for the next version.
const maxIdle = 6 * time.Hour

// OpenPool opens the pool whose directory is dir.
func OpenPool(dir string, log *slog.Logger) (*Pool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	stale, _ := filepath.Glob(filepath.Join(dir, "learn-*"))
	for _, path := range stale {
		_ = os.Remove(path)
	}
	script, err := Script(dir)
	if err != nil {
		return nil, err
	}
	p := &Pool{dir: dir, script: script, log: log, keys: map[string]*warm{}, slots: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Launch is a version's start.
type Launch struct {
	pool    *Pool
	cold    bool    // it was told not to fork
	zygote  *Zygote // that forks the version, nil if it starts by itself
	version Version
	learn   string
}

// Launch changes a worker's Spec so that the version is forked if it can be, and else by itself, with its imports
// noted. With cold it is not forked. Call Ready or Failed on the result.
func (p *Pool) Launch(v Version, spec *worker.Spec, cold bool) *Launch {
	l := &Launch{pool: p, version: v, cold: cold}
	spec.Args = v.Args
	p.mu.Lock()
	w := p.get(v.Key)
	z := w.zygote
	fits := !cold && z != nil && w.fits(&v)
	if fits {
		w.used = time.Now()
	}
	p.mu.Unlock()
	if fits {
		select {
		case <-z.Done():
		default:
			l.zygote, spec.Fork = z, z.Fork
			return l
		}
	}
	f, err := os.CreateTemp(p.dir, "learn-")
	if err == nil {
		l.learn = f.Name()
		f.Close()
	}
	spec.Program, spec.Args = v.Python, Cold(p.script, l.learn, v.Args)
	return l
}

// Warm reports that the version is forked.
func (l *Launch) Warm() bool { return l.zygote != nil }

// Ready says that the version answers. What it has imported until now is what the next one is forked with.
func (l *Launch) Ready() {
	if l.Warm() || l.learn == "" {
		return
	}
	b, err := os.ReadFile(l.learn)
	if err = errors.Join(err, os.Remove(l.learn)); err != nil {
		l.pool.log.Warn("what a version imports was not learned", "error", err)
		return
	}
	l.pool.mu.Lock()
	w := l.pool.get(l.version.Key)
	bad, make := l.cold && w.suspect, !w.suspect && !w.making && !w.bad
	w.making = w.making || make
	l.pool.mu.Unlock()
	if bad {
		l.pool.giveUp(l.version.Key)
	}
	if make {
		l.pool.work.Go(func() { l.pool.make(l.version, w, importable(l.version.Args, strings.Fields(string(b)))) })
	}
}

// Failed says that the version did not become ready, or, without blame, that nobody waits for it any more. If it was forked, start it once more by itself: when it comes up
// then, versions of its Key are not forked any more. That the zygote had ended is nobody's fault.
func (l *Launch) Failed(blame bool) {
	if l.learn != "" {
		_ = os.Remove(l.learn)
	}
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
	l.pool.get(l.version.Key).suspect = suspect
}

// giveUp notes that versions of a key do not work when they are forked.
func (p *Pool) giveUp(key string) {
	p.mu.Lock()
	w := p.get(key)
	z := w.zygote
	w.zygote, w.bad, w.suspect = nil, true, false
	p.mu.Unlock()
	err := durable.WriteFile(p.path(key), []byte(key+"\n"), 0o600)
	p.log.Error("a version did not come up when it was forked, and did by itself: versions with these dependencies are not forked any more",
		"key", key, "error", err)
	if z != nil {
		z.Close()
	}
}

// make makes the zygote of a key anew.
func (p *Pool) make(v Version, w *warm, modules []string) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-p.ctx.Done():
		return
	}
	env := v.shared()
	z, err := Start(p.ctx, Config{Python: v.Python, Script: p.script, Env: env, Modules: modules})
	p.mu.Lock()
	old := w.zygote
	w.making = false
	if err == nil && p.keys[v.Key] == w && !w.bad {
		w.zygote, w.env, w.top, w.used = z, env, topLevel(z.Modules), time.Now()
		z = nil
	} else {
		old = nil
	}
	p.mu.Unlock()
	if err != nil && p.ctx.Err() == nil {
		p.log.Warn("no zygote: versions start by themselves", "key", v.Key, "error", err)
	}
	for _, z := range []*Zygote{z, old} {
		if z != nil {
			z.Close()
		}
	}
}

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

// fits reports whether the version can be forked from the zygote: it has the same environment, and no module that is there
// stands for one of the version's own.
func (w *warm) fits(v *Version) bool {
	if !slices.Equal(w.env, v.shared()) {
		return false
	}
	for _, dir := range v.Sources {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
		for _, e := range entries {
			name, _, _ := strings.Cut(e.Name(), ".")
			if w.top[name] {
				return false
			}
		}
	}
	return true
}

// topLevel returns the first parts of modules' names, and what the interpreter itself would look for.
func topLevel(modules []string) map[string]bool {
	top := map[string]bool{"sitecustomize": true, "usercustomize": true}
	for _, name := range modules {
		first, _, _ := strings.Cut(name, ".")
		top[first] = true
	}
	return top
}

// get returns what is known of a key. p.mu is held.
func (p *Pool) get(key string) *warm {
	w := p.keys[key]
	if w == nil {
		_, err := os.Stat(p.path(key))
		w = &warm{bad: err == nil}
		p.keys[key] = w
	}
	return w
}

// badSuffix is that of the files that say that a key's versions are not forked.
const badSuffix = ".bad"

func (p *Pool) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(p.dir, hex.EncodeToString(sum[:16])+badSuffix)
}

// Keep ends the zygotes of other keys than these, and those that nobody has needed for long, and forgets what is known of other keys.
func (p *Pool) Keep(keys map[string]bool) error {
	p.mu.Lock()
	var end []*Zygote
	kept := map[string]bool{filepath.Base(p.script): true}
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
		if strings.HasSuffix(e.Name(), badSuffix) && !kept[e.Name()] {
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

// importable leaves out what a start-up looked for to run it, not to import it: a program.
func importable(args, modules []string) []string {
	return slices.DeleteFunc(unique(modules), func(name string) bool {
		return name == "__main__" || strings.HasSuffix(name, ".__main__") || args[0] == "-m" && name == args[1]
	})
}

func unique(all []string) []string {
	seen := map[string]bool{}
	out := all[:0]
	for _, s := range all {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
