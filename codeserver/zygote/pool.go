package zygote

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Exchange is how hosts tell each other what versions import.
type Exchange interface {
	// Fetch returns what is known of a key, nil if nothing is.
	Fetch(ctx context.Context, key string) ([]byte, error)
	Publish(ctx context.Context, key string, learned []byte) error
}

// Pool keeps zygotes for each Key that versions were started of: one for each environment, see parent.
type Pool struct {
	dir, script string
	exchange    Exchange // nil if there is none
	log         *slog.Logger
	times       times
	after       func(time.Duration, func(open bool)) // calls it then, or when the pool is closed
	ctx         context.Context                      //nolint:containedctx // ends with the pool; what runs in the background runs in it
	cancel      context.CancelFunc
	work, late  sync.WaitGroup
	idling      sync.WaitGroup

	saving sync.Mutex // of the files of records; taken before mu

	mu    sync.Mutex
	keys  map[string]*warm
	count counts
	// repairs counts calls of Repaired.
	repairs int
	slots   chan struct{} // one zygote is made in the background at a time: it takes a processor from those who serve
}

// times are how long things take; tests have less patience.
type times struct {
	wait   time.Duration // a version waits so long for its zygote; then it starts by itself
	late   time.Duration // what a version imports so long after it became ready is learned, too
	remake time.Duration // between two zygotes of a key, of which the later has more modules; twice as long each time
	idle   time.Duration // how long a zygote waits for the next version
}

var defaultTimes = times{wait: 30 * time.Second, late: time.Minute, remake: time.Minute, idle: 6 * time.Hour}

// maxRemake is the longest that a zygote waits to be made anew with what was learned since.
const maxRemake = time.Hour

// warm is what is known of one Key.
type warm struct {
	record        // is in a file, too
	asked  bool   // the exchange was
	theirs []byte // what the exchange has, as far as is known

	parents   map[string]*parent // by environment
	latest    map[string]string  // the environment of each location's version that was started last
	again     bool               // Bad does not hold: it is tried once more whether versions can be forked
	searching bool               // for what breaks a fork: none is forked meanwhile
	flukes    int                // a fork failed, and the same succeeded later
	suspects  map[string]bool    // versions that did not come up when they were forked
}

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
	p.idling.Go(p.watchIdle)
	return p, nil
}

// Cold returns the arguments for Python that run args without a zygote, and learn nothing.
func (p *Pool) Cold(args []string) []string { return Cold(p.script, "", args) }

// Script is the program that starts versions.
func (p *Pool) Script() string { return p.script }

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
