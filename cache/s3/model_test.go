package s3_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// TestModel runs seeded schedules of several nodes over one simulated bucket. Every request takes a random time before
// and after it is done, may fail before or after, may be done long after its caller gave up, and nodes are killed at any
// point and started again, or miss all that happens for hours. Blobs are pinned while gc runs. The clock is virtual, so
// that hours pass. What the nodes say is held against what they promised. PEXPRESS_MODEL_SEED replays one schedule, as far
// as Go's scheduler lets it; PEXPRESS_SOAK=1 runs thousands, and PEXPRESS_MODEL_SCHEDULES as many as it says.
func TestModel(t *testing.T) {
	first, n := uint64(1), uint64(60)
	if os.Getenv("PEXPRESS_SOAK") == "1" {
		first, n = uint64(time.Now().UnixNano()), 10_000
	}
	if s := os.Getenv("PEXPRESS_MODEL_SCHEDULES"); s != "" {
		var err error
		n, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	if s := os.Getenv("PEXPRESS_MODEL_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		first, n = seed, 1
	}
	var total tally
	for seed := first; seed < first+n; seed++ {
		if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { total.add(runSchedule(t, seed)) })
		}) {
			t.Fatalf("replay with PEXPRESS_MODEL_SEED=%d", seed)
		}
	}
	t.Logf("%d schedules: %+v", n, total)
	if n > 50 {
		require.Positive(t, min(total.Condemned, total.Deleted, total.Kills, total.Compactions, total.Faults, total.Zombies, total.Swept, total.Late, total.Slept, total.Pinned),
			"each of these has to happen, or the model tests nothing: %+v", total)
	}
}

// tally counts what happened.
type tally struct {
	Requests, Faults, Zombies, Kills, Puts, Finds, Gets, Misses, Compactions, Condemned, Moved, Deleted, Swept, Late, Slept, Pinned int
}

func (a *tally) add(b tally) {
	a.Requests += b.Requests
	a.Faults += b.Faults
	a.Zombies += b.Zombies
	a.Kills += b.Kills
	a.Puts += b.Puts
	a.Finds += b.Finds
	a.Gets += b.Gets
	a.Misses += b.Misses
	a.Compactions += b.Compactions
	a.Condemned += b.Condemned
	a.Moved += b.Moved
	a.Deleted += b.Deleted
	a.Swept += b.Swept
	a.Late += b.Late
	a.Slept += b.Slept
	a.Pinned += b.Pinned
}

// blobKey names a blob of a namespace.
type blobKey struct {
	namespace string
	digest    digest.Digest
}

// world is one schedule.
type world struct {
	t   *testing.T
	sim *s3test.Sim

	mu       sync.Mutex
	calm     bool // no more faults
	nodes    []*node
	promises map[blobKey]time.Time
	actions  map[blobKey][]digest.Digest // results that were ever sent
	failed   bool

	seed       uint64
	retention  time.Duration
	limit      time.Duration // of commits
	raises     bool          // the retention, now and then
	pins       map[string]blobKey
	nth        map[string]int
	shardsFrom int64
	tally      tally
	log        []string
}

// node is a node that may be killed and started again.
type node struct {
	w     *world
	name  string
	skew  time.Duration
	away  bool // nobody asks it anything
	proc  *process
	store *s3.Store
}

var (
	universe      = append(blobs(77, 40, 300), blobs(78, 1, 300<<10)...)
	modelActions  = digests(blobs(79, 6, 10))
	modelResults  = universe[:6]
	modelSpaces   = []string{"main", "pr"}
	errKilled     = errors.New("model: the node was killed")
	errInjected   = errors.New("model: 500 internal error")
	modelByDigest = byDigest(universe)
)

func byDigest(bs []cache.Blob) map[digest.Digest][]byte {
	m := map[digest.Digest][]byte{}
	for _, b := range bs {
		m[b.Digest] = b.Data
	}
	return m
}

// roll and duration are for the one who asks: a client, a node.
func (w *world) roll(who string, n int) int { return w.chance(who).IntN(n) }

func (w *world) duration(who string, from, to time.Duration) time.Duration {
	return between(w.chance(who), from, to)
}

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

// chance returns random numbers that depend on the seed and on what happens, and not on what else happens at that time.
func (w *world) chance(what string) *rand.Rand {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nth[what]++
	h := fnv.New64a()
	fmt.Fprint(h, what, w.nth[what])
	return rand.New(rand.NewPCG(w.seed, h.Sum64()))
}

func (w *world) isCalm() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calm
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// violated reports a broken promise, with what led to it.
func (w *world) violated(format string, args ...any) {
	w.note("VIOLATED "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.failed {
		w.failed = true
		for _, l := range w.log[max(0, len(w.log)-4000):] {
			w.t.Log(l)
		}
		w.t.Errorf(format, args...)
	}
}

func runSchedule(t *testing.T, seed uint64) tally {
	rng := rand.New(rand.NewPCG(seed, 1))
	uuid.SetRand(&lockedRandom{rng: rand.New(rand.NewPCG(seed, 2))})
	defer uuid.SetRand(nil)
	w := &world{t: t, seed: seed, nth: map[string]int{}, sim: s3test.NewSim(time.Now), promises: map[blobKey]time.Time{}, actions: map[blobKey][]digest.Digest{}, pins: map[string]blobKey{}}
	w.retention = []time.Duration{5 * time.Minute, 30 * time.Minute, 3 * time.Hour}[rng.IntN(3)]
	w.limit = []time.Duration{s3.Freshness + s3.Slack, s3.Freshness + w.retention + s3.Slack, w.retention + time.Hour}[rng.IntN(3)]
	w.raises = rng.IntN(4) == 0
	w.shardsFrom = []int64{0, 1, 40}[rng.IntN(3)]
	for i := range 1 + rng.IntN(3) {
		n := &node{w: w, name: fmt.Sprint("node ", i), skew: time.Duration(rng.IntN(5)-2) * time.Duration(rng.IntN(60)) * time.Minute}
		w.nodes = append(w.nodes, n)
		n.start()
	}
	var clients sync.WaitGroup
	end := time.Now().Add(6*w.retention + time.Hour)
	for i := range 3 {
		clients.Go(func() {
			time.Sleep(time.Duration(1+i) * time.Microsecond)
			(&client{w, fmt.Sprint("client ", i)}).run(end)
		})
	}
	clients.Go(func() { (&client{w, "maintainer"}).maintain(end) })
	clients.Go(func() { (&client{w, "sleeper"}).letSleep(end) })
	clients.Wait()
	w.finish()
	return w.tally
}

// lockedRandom is where UUIDs come from.
type lockedRandom struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (r *lockedRandom) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p {
		p[i] = byte(r.rng.Uint32())
	}
	return len(p), nil
}

func (n *node) now() time.Time { return time.Now().Add(n.skew) }

func (w *world) options(o s3.Options) s3.Options {
	return s3.CommitLimit(s3.ShardsFrom(o, w.shardsFrom), w.limit)
}

// start opens the store, again and again if it has to.
func (n *node) start() {
	for tries := 0; ; tries++ {
		if tries > 300 {
			n.w.violated("a node cannot start")
			panic("a node cannot start")
		}
		p := &process{w: n.w, name: n.name, base: n.w.sim}
		retention := n.w.retention
		if n.w.raises && n.w.roll(n.name, 4) == 0 {
			retention *= 3
		}
		s, err := s3.OpenBucket(context.Background(), p, n.w.options(s3.Options{
			Manual: true, Now: n.now, TouchAfter: time.Hour, Linger: time.Duration(n.w.roll(n.name, 3)-1) * 5 * time.Millisecond,
			Retention: retention,
		}))
		if err == nil {
			n.w.mu.Lock()
			n.proc, n.store = p, s
			n.w.mu.Unlock()
			return
		}
		n.w.note("%s opens: %v", n.name, err)
		time.Sleep(time.Second)
	}
}

// kill ends a node in the middle of whatever it does, and starts another one in its place.
func (n *node) kill() {
	n.w.mu.Lock()
	p, s := n.proc, n.store
	p.dead = true
	n.w.tally.Kills++
	n.w.mu.Unlock()
	_ = s.Close() // nothing it does reaches the bucket
	n.start()
}

// anyStore returns a node for a call.
func (cl *client) anyStore() (*s3.Store, string) {
	i := cl.roll(len(cl.w.nodes))
	if cl.roll(3) > 0 { // for a while, most calls go to one node, so that the others fall behind
		i = int(time.Since(time.Time{})/cl.w.retention) % len(cl.w.nodes)
	}
	cl.w.mu.Lock()
	defer cl.w.mu.Unlock()
	for cl.w.nodes[i].away {
		i = (i + 1) % len(cl.w.nodes)
	}
	return cl.w.nodes[i].store, cl.w.nodes[i].name
}

// process is how one life of a node sees the bucket.
type process struct {
	w    *world
	name string
	base s3.Bucket
	dead bool
}
