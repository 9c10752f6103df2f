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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache/digest"
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
	return err == nil && !u.none()
}

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

// newSpec returns good code with a word of its own, in the cache.
func (c *chaos) newSpec() *codeserverpb.VersionSpec {
	c.next++
	return c.spec("word"+strconv.Itoa(c.next), nil)
}

func (c *chaos) spec(word string, change map[string]string) *codeserverpb.VersionSpec {
	app := webApp(word)
	app["app/word.py"] += "import dep\nassert dep.N >= 0\n"
	for path, content := range change {
		app[path] = content
	}
	n := c.random.IntN(3)
	w := wheel(c.t, "dep", member{name: "dep.py", content: fmt.Sprintf("N = %d\n", n)})
	s := makeSpec(c.t, c.cas, app, func(s *codeserverpb.VersionSpec) {
		s.DepsRoot = depsTree(c.t, c.cas, map[string][]byte{"dep-1.0-py3-none-any.whl": w}).Proto()
	})
	_, name, err := digest.Marshal(s)
	require.NoError(c.t, err)
	c.words[name.Hash()] = word
	return s
}

func (c *chaos) impaired() bool { return len(c.ills) > 0 }

// good returns a spec of good code, nil if there is none to be had.
func (c *chaos) goodSpec() *codeserverpb.VersionSpec {
	if c.cacheThere() {
		return c.newSpec()
	}
	if len(c.reserve) == 0 {
		return nil
	}
	s := c.reserve[0]
	c.reserve = c.reserve[1:]
	return s
}

func (c *chaos) wordOf(s *codeserverpb.VersionSpec) string {
	_, name, err := digest.Marshal(s)
	require.NoError(c.t, err)
	return c.words[name.Hash()]
}

func (c *chaos) send(p *place, s *codeserverpb.VersionSpec, ready time.Duration) (*codeserverpb.Deployed, error) {
	limit := patience
	if c.ills[cacheCut] > 0 {
		limit = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	return deployWith(ctx, c.Client, &codeserverpb.DeployRequest{Location: p.name, Spec: s, ReadyTimeout: durationpb.New(ready)})
}

func (c *chaos) deployGood(p *place) error {
	s := c.goodSpec()
	if s == nil {
		return nil
	}
	d, err := c.send(p, s, time.Minute)
	if err != nil {
		c.note("  %s", firstLine(err))
		return err
	}
	c.serves(p, c.wordOf(s))
	p.address = d.GetLocation().GetAddress()
	return nil
}

func (c *chaos) serves(p *place, word string) {
	if p.good != word {
		p.kills = 0
	}
	p.good, p.maybe = word, nil
}

func (c *chaos) tryGood(p *place) {
	if err := c.deployGood(p); err != nil {
		require.True(c.t, c.impaired(), "good code is refused: %v", err)
		require.NotEmpty(c.t, status.Convert(err).Message())
		c.refused++
	}
}

// deployBroken deploys code that cannot serve, and is told why.
func (c *chaos) deployBroken(p *place) {
	if !c.cacheThere() {
		return
	}
	broken := []struct{ path, content, why string }{
		{"app/word.py", "WORD = (\n", "SyntaxError"},
		{"app/word.py", "import sys\nsys.exit(3)\n", "status 3"},
		{"app/word.py", "import time\ntime.sleep(600)\n", "not ready after"},
		{"app/__main__.py", strings.Replace(webMain, `int(os.environ["PORT"])`, "0", 1), "not ready after"},
	}
	b := broken[c.random.IntN(len(broken))]
	c.next++
	s := c.spec("broken"+strconv.Itoa(c.next), map[string]string{b.path: b.content})
	_, err := c.send(p, s, 3*time.Second)
	require.Error(c.t, err)
	if c.ills[diskFull] == 0 && !strings.Contains(err.Error(), "not ready after") { // it may be the machine that is slow
		require.ErrorContains(c.t, err, b.why)
	}
	require.Equal(c.t, codes.FailedPrecondition, status.Code(err), "%v", err)
	if p.good == "" && len(p.maybe) == 0 {
		p.address = ""
	}
}

func (c *chaos) deployTwo(p *place) {
	one, two := c.goodSpec(), c.goodSpec()
	if one == nil || two == nil {
		return
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var done []string
	for _, s := range []*codeserverpb.VersionSpec{one, two} {
		word := c.wordOf(s)
		wg.Go(func() {
			d, err := c.send(p, s, time.Minute)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done = append(done, word)
				p.address = d.GetLocation().GetAddress()
			} else if status.Code(err) != codes.Aborted && !c.impaired() {
				c.t.Errorf("good code is refused: %v", err)
			}
		})
	}
	wg.Wait()
	require.False(c.t, c.t.Failed())
	if len(done) == 0 {
		require.True(c.t, c.impaired(), "one of two is deployed")
		return
	}
	p.kills, p.good, p.maybe = 0, done[0], done[1:]
}

func (c *chaos) killInDeploy(p *place) {
	s := c.goodSpec()
	if s == nil {
		return
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.send(p, s, time.Minute)
		done <- err
	}()
	time.Sleep(time.Duration(c.random.Int64N(int64(time.Second))))
	c.endServer(syscall.SIGKILL)
	if err := <-done; err == nil {
		c.serves(p, c.wordOf(s))
	} else {
		p.maybe = append(p.maybe, c.wordOf(s))
	}
	c.serve(0)
}

func (c *chaos) restart(sig syscall.Signal, skew time.Duration) {
	c.endServer(sig)
	c.serve(skew)
}

// skew has the codeserver come back with another clock, to a state that is from the future or long ago.
func (c *chaos) skew(*place) {
	by := time.Duration(c.random.Int64N(int64(800*24*time.Hour))) - 400*24*time.Hour
	c.note("  by %s", by)
	sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT}[c.random.IntN(3)]
	c.restart(sig, by)
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

func (c *chaos) killZygote(*place) {
	for _, pid := range c.zygotes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// mayKill reports whether a version may be killed again: one that ends too often is taken back.
func (p *place) mayKill() bool {
	p.kills++
	return p.good != "" && p.kills <= 2
}

func (c *chaos) killVersion(p *place) {
	l := c.list(p)
	if l == nil || !p.mayKill() {
		return
	}
	if pid := int(current(l).GetPid()); pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		c.gone(pid)
	}
}

func (c *chaos) killShim(p *place) {
	l := c.list(p)
	if l == nil || !p.mayKill() {
		return
	}
	pid := int(current(l).GetPid())
	shims := c.shimsOf(pid)
	if pid < 2 || len(shims) == 0 {
		return
	}
	for _, shim := range shims {
		_ = syscall.Kill(shim, syscall.SIGKILL)
	}
	c.gone(pid)
}

func (c *chaos) gone(pid int) {
	require.Eventually(c.t, func() bool { return ended(pid) }, patience, 5*time.Millisecond, "process %d does not end", pid)
}

// shimsOf returns the processes above a version's that watch over it.
func (c *chaos) shimsOf(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || len(b) == 0 {
		return nil
	}
	parent := shimOf(c.t, pid)
	if parent < 2 || parent == c.server.cmd.Process.Pid {
		return nil
	}
	return []int{parent}
}

func (c *chaos) makeIll(ill string) {
	if c.ills[ill] > 0 || ill == cacheCut && c.ills[cacheGone] > 0 || ill == cacheGone && c.ills[cacheCut] > 0 || ill == diskFull && !c.small {
		return
	}
	switch ill {
	case cacheGone:
		c.cacheProc.end(syscall.SIGKILL)
	case cacheCut:
		require.NoError(c.t, c.cacheProc.cmd.Process.Signal(syscall.SIGSTOP))
	case diskFull:
		c.fill()
	}
	c.ills[ill] = 1 + c.random.IntN(4)
}

// corrupt writes over some of the files that the codeserver keeps.
func (c *chaos) corrupt(*place) {
	patterns := []string{"store/blobs/cas/*/*", "store/trees/*/app/*", "python/wheels/*/*.py", "python/wheels/*/*/*", "warm/*", "logs/*"}
	pattern := patterns[c.random.IntN(len(patterns))]
	files, err := filepath.Glob(filepath.Join(c.state, pattern))
	require.NoError(c.t, err)
	c.random.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	n := 0
	for _, path := range files {
		st, err := os.Lstat(path)
		if err != nil || !st.Mode().IsRegular() || n == 3 {
			continue
		}
		n++
		c.note("  %s", strings.TrimPrefix(path, c.state))
		_ = os.Chmod(path, 0o644)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		_, _ = f.Write([]byte(strings.Repeat("?", int(st.Size()))))
		f.Close()
		_ = os.Chmod(path, st.Mode())
	}
	if c.ills[diskFull] == 0 {
		require.NoError(c.t, os.WriteFile(filepath.Join(c.state, ".state.json.17"), []byte("{"), 0o600))
	}
	c.restart([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT}[c.random.IntN(3)], 0)
}

func (c *chaos) rollback(p *place) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	stream, err := c.Client.Rollback(ctx, &codeserverpb.RollbackRequest{Location: p.name})
	var d *codeserverpb.Deployed
	for err == nil && d == nil {
		var ev *codeserverpb.DeployEvent
		if ev, err = stream.Recv(); err == nil {
			d = ev.GetDeployed()
		}
	}
	if err != nil {
		c.note("  %s", firstLine(err))
		message := status.Convert(err).Message()
		require.True(c.t, c.impaired() || strings.Contains(message, "served no other version before") || p.good == "", "%v", err)
		return
	}
	word := c.words[d.GetLocation().GetCurrent()]
	require.Contains(c.t, word, "word")
	c.serves(p, word)
}

func (c *chaos) remove(p *place) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	_, err := c.Remove(ctx, &codeserverpb.RemoveRequest{Location: p.name})
	if err != nil {
		c.note("  %s", firstLine(err))
		require.True(c.t, c.impaired() || p.good == "", "%v", err)
		return
	}
	p.good, p.maybe, p.address = "", nil, ""
	require.Nil(c.t, c.list(p))
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
		}, patience, 20*time.Millisecond, "%s must serve %q %q: %v", p.name, p.good, p.maybe, &last)
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
	}, patience, 20*time.Millisecond, "%d processes are to be there: %q", &want, &found)
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
	require.Eventually(c.t, func() bool { return len(left()) == 0 }, patience, 50*time.Millisecond, "is left: %v", left)
	require.LessOrEqual(c.t, openFiles(c.server.cmd.Process.Pid), least)
	c.endServer(syscall.SIGINT)
	require.Empty(c.t, processesOf(c.state))
	require.Empty(c.t, c.zygotes())
	c.serve(0)
}
