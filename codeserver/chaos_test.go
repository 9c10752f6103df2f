package codeserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestChaosSoak does to a codeserver what goes wrong in the world, in an order that a seed says. After each step every
// location serves its last good version, or, as long as the cache or the disk is not to be had, says why not, and there is no
// process beside those. CHAOS_SEED and CHAOS_STEPS run another one.
func TestChaosSoak(t *testing.T) {
	steps, seed := 25, uint64(7)
	if os.Getenv("PEXPRESS_SOAK") != "" {
		steps, seed = 500, 1
	}
	if n, err := strconv.Atoi(os.Getenv("CHAOS_STEPS")); err == nil {
		steps = n
	}
	if n, err := strconv.ParseUint(os.Getenv("CHAOS_SEED"), 10, 64); err == nil {
		seed = n
	}
	c := newChaos(t, seed)
	begin := time.Now()
	for range steps {
		c.step()
	}
	c.finish()
	t.Logf("seed %d: %d steps in %s; %d times a location said why it does not serve; %d good deploys refused, each with its reason; %v",
		seed, steps, time.Since(begin).Round(time.Second), c.excused, c.refused, c.counts)
}

// place is what a location must serve.
type place struct {
	name, address string
	good          string   // "" if it serves nothing
	maybe         []string // what it may serve instead: something broke off
	kills         int      // of the version, since it was deployed
}

// chaos is a model of what the world's locations must serve.
type chaos struct {
	*world
	random  *rand.Rand
	places  []*place
	words   map[string]string // of versions, by name
	next    int
	reserve []*codeserverpb.VersionSpec // in the cache since the beginning
	did     []string
	counts  map[string]int
	excused int
	refused int
}

func newChaos(t *testing.T, seed uint64) *chaos {
	var users Users
	if seed%2 == 1 && usersAllowed() {
		first := 63000 + int(seed%20)*40 // nobody else's here
		users = Users{First: first, Last: first + 39}
	}
	c := &chaos{
		world: newWorld(t, users), random: rand.New(rand.NewPCG(seed, 0)), words: map[string]string{}, counts: map[string]int{},
		places: []*place{{name: "a"}, {name: "b"}, {name: "c"}},
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(c.log.Name())
			t.Logf("seed %d, users %v; what was done:\n%s\nthe end of what the processes said:\n%s", seed, users, strings.Join(c.did, "\n"), log[max(0, len(log)-20000):])
		}
	})
	for range 10 {
		c.reserve = append(c.reserve, c.newSpec())
	}
	for _, p := range c.places {
		c.note("deploy %s", p.name)
		require.NoError(t, c.deployGood(p))
	}
	c.check()
	return c
}

// usersAllowed reports whether versions can have users of their own here.
func usersAllowed() bool {
	u, err := ParseUsers("auto")
	return err == nil && !u.None()
}

// lazily is a part of a message that is worked out when it is needed: what Eventually says is of the end, not the beginning.
type lazily func() any

func (l lazily) String() string { return fmt.Sprint(l()) }

func (c *chaos) note(format string, args ...any) {
	c.did = append(c.did, fmt.Sprintf("%3d ", len(c.did))+fmt.Sprintf(format, args...))
}

// patience is how long a thing may take that must come on a machine with much else to do.
const patience = 2 * time.Minute

// kinds of steps, and how often they come beside the others.
var kinds = []struct {
	name   string
	weight int
	do     func(*chaos, *place)
}{
	{"deploy", 6, func(c *chaos, p *place) { c.tryGood(p) }},
	{"deploy broken code", 6, (*chaos).deployBroken},
	{"two deploys at once", 2, (*chaos).deployTwo},
	{"kill the codeserver in a deploy", 3, (*chaos).killInDeploy},
	{"kill the codeserver", 3, func(c *chaos, _ *place) { c.restart(syscall.SIGKILL, 0) }},
	{"restart the codeserver", 3, func(c *chaos, _ *place) { c.restart(syscall.SIGTERM, 0) }},
	{"restart all", 2, func(c *chaos, _ *place) { c.restart(syscall.SIGINT, 0) }},
	{"skew the clock", 2, (*chaos).skew},
	{"kill a zygote", 2, (*chaos).killZygote},
	{"kill a version", 3, (*chaos).killVersion},
	{"kill a shim", 3, (*chaos).killShim},
	{"kill the cache", 2, func(c *chaos, _ *place) { c.makeIll(cacheGone) }},
	{"cut the cache off", 2, func(c *chaos, _ *place) { c.makeIll(cacheCut) }},
	{"fill the disk", 2, func(c *chaos, _ *place) { c.makeIll(diskFull) }},
	{"corrupt a stored file", 4, (*chaos).corrupt},
	{"rollback", 4, (*chaos).rollback},
	{"remove", 1, (*chaos).remove},
}

func (c *chaos) step() {
	for ill, left := range c.ills {
		if c.ills[ill] = left - 1; left <= 1 {
			c.heal(ill)
			c.note("%s: it is over", ill)
		}
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	n := c.random.IntN(total)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			p := c.places[c.random.IntN(len(c.places))]
			c.counts[k.name]++
			c.note("%s: %s", k.name, p.name)
			k.do(c, p)
			break
		}
	}
	c.check()
}

func (c *chaos) impaired() bool { return len(c.ills) > 0 }

func (c *chaos) serves(p *place, word string) {
	if p.good != word {
		p.kills = 0
	}
	p.good, p.maybe = word, nil
}

func (c *chaos) list(p *place) *codeserverpb.Location {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	r, err := c.List(ctx, &codeserverpb.ListRequest{})
	require.NoError(c.t, err)
	for _, l := range r.GetLocations() {
		if l.GetName() == p.name && l.GetCurrent() != "" {
			return l
		}
	}
	return nil
}

func current(l *codeserverpb.Location) *codeserverpb.Version {
	for _, v := range l.GetVersions() {
		if v.GetName() == l.GetCurrent() {
			return v
		}
	}
	return nil
}

// check makes sure that all locations serve what they must, and that no process is there for anything else.
func (c *chaos) check() {
	c.t.Helper()
	for _, p := range c.places {
		last := ""
		require.Eventually(c.t, func() bool {
			ok, why := c.right(p)
			last = why
			return ok
		}, patience, 20*time.Millisecond, "%s must serve %q %q: %v", p.name, p.good, p.maybe, lazily(func() any { return last }))
	}
	var found []string
	want := 0
	require.Eventually(c.t, func() bool {
		want = 0
		for _, p := range c.places {
			for _, v := range c.list(p).GetVersions() {
				if v.GetPid() > 0 {
					want++
				}
			}
		}
		found = c.versions()
		return len(found) == want
	}, patience, 20*time.Millisecond, "%v", lazily(func() any { return fmt.Sprintf("%d processes are to be there: %q", want, found) }))
}

// versions lists the processes of versions, without those that watch over them.
func (c *chaos) versions() []string {
	return slices.DeleteFunc(processesOf(c.state), func(p string) bool { return strings.Contains(p, "pexpress-worker") })
}

// right reports whether a location serves what it must, or says why not as long as there is a reason.
func (c *chaos) right(p *place) (ok bool, why string) {
	l := c.list(p)
	if l == nil {
		if p.good == "" || slices.Contains(p.maybe, "") {
			p.good, p.maybe, p.address = "", nil, ""
			return true, ""
		}
		return false, "it is not there"
	}
	v := current(l)
	word, err := get(l.GetAddress(), "/")
	if err != nil {
		if c.impaired() && v.GetState() == codeserverpb.State_FAILED && v.GetError() != "" {
			c.excused++
			return true, ""
		}
		return false, fmt.Sprintf("%v; it is %s: %s", err, v.GetState(), v.GetError())
	}
	if word != c.words[l.GetCurrent()] {
		return false, fmt.Sprintf("it serves %q, and says that it is %q", word, c.words[l.GetCurrent()])
	}
	if word == p.good || slices.Contains(p.maybe, word) {
		c.serves(p, word)
		p.address = l.GetAddress()
		return true, ""
	}
	// It may have fallen back, and then says so.
	for _, x := range l.GetVersions() {
		if c.words[x.GetName()] == p.good && strings.Contains(x.GetError(), "serves "+l.GetCurrent()[:12]+" again") {
			c.note("  %s fell back to %s: %s", p.name, word, x.GetError())
			c.serves(p, word)
			return true, ""
		}
	}
	return false, fmt.Sprintf("it serves %q", word)
}

// finish ends all ills, removes all locations, and finds nothing left.
func (c *chaos) finish() {
	c.healAll()
	c.note("all is well again")
	c.check()
	c.restart(syscall.SIGKILL, 0)
	c.check()
	least := openFiles(c.server.cmd.Process.Pid)
	for _, p := range c.places {
		c.note("remove %s", p.name)
		c.remove(p)
	}
	left := func() (left []string) {
		for _, pattern := range []string{
			"store/blobs/cas/*/*", "store/trees/*", "store/tmp/*", "python/envs/*", "python/wheels/*", "python/tmp/*", "logs/*", "run/*", "homes/*",
		} {
			found, err := filepath.Glob(filepath.Join(c.state, pattern))
			require.NoError(c.t, err)
			left = append(left, found...)
		}
		return append(left, processesOf(c.state)...)
	}
	require.Eventually(c.t, func() bool { return len(left()) == 0 }, patience, 50*time.Millisecond, "is left: %v", lazily(func() any { return left() }))
	require.LessOrEqual(c.t, openFiles(c.server.cmd.Process.Pid), least)
	c.endServer(syscall.SIGINT)
	require.Empty(c.t, processesOf(c.state))
	require.Empty(c.t, c.zygotes())
	c.serve(0)
}
