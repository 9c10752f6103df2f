package codeserver

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// ending is an app that ends by itself soon after it has become ready.
func ending(word string) map[string]string {
	app := webApp(word)
	app["app/word.py"] = `import os, threading
WORD = "` + word + `"
threading.Timer(0.5, os._exit, [4]).start()
`
	return app
}

// TestRollbackFromLoop goes back by hand from a version that keeps ending: it stays failed, and nothing goes back to it that
// does not name it.
func TestRollbackFromLoop(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	one := h.deploy(h.spec(webApp("one"))).GetLocation().GetCurrent()
	bad := h.deploy(h.spec(ending("bad"))).GetLocation().GetCurrent()
	eventually(t, func() bool { return h.version("web").GetUsage().GetRestarts() >= 2 }, "it has ended twice")
	d, err := h.rollback("")
	require.NoError(t, err)
	require.Equal(t, one, d.GetLocation().GetCurrent())
	failed := func() {
		t.Helper()
		eventually(t, func() bool {
			l := h.s.messages("web")[0]
			i := 0
			for l.GetVersions()[i].GetName() != bad {
				i++
			}
			return l.GetVersions()[i].GetState() == codeserverpb.State_FAILED
		}, "it stays failed")
		for _, v := range h.s.messages("web")[0].GetVersions() {
			if v.GetName() == bad {
				require.Regexp(t, `ended, hung or did not come up [1-4] times, until web was moved to `+one[:12]+`; the last time: .*status 4`, v.GetError())
			}
		}
		require.Empty(t, h.s.messages("web")[0].GetPrevious())
		_, err := h.rollback("")
		require.ErrorContains(t, err, "served no other version before but "+bad[:12]+", which failed")
	}
	failed()
	h.restart()
	failed()

	d, err = h.rollback(bad)
	require.NoError(t, err, "who insists may go back to it")
	require.Equal(t, bad, d.GetLocation().GetCurrent())
	h.restart() // and it is known still that it had failed
	d, err = h.rollback("")
	require.NoError(t, err)
	require.Equal(t, one, d.GetLocation().GetCurrent())
	failed()

	h.deploy(h.spec(webApp("two")))
	two := h.deploy(h.spec(ending("bad"))).GetLocation()
	require.Equal(t, bad, two.GetCurrent(), "who insists may deploy it again")
	eventually(t, func() bool { return h.version("web").GetUsage().GetRestarts() >= 2 }, "it has ended twice")
	h.deploy(h.spec(webApp("three")))
	d, err = h.rollback("")
	require.NoError(t, err)
	require.Equal(t, "two", h.get(d, "/"), "a deploy leaves it behind, too: the one before it is gone back to")
}

// TestLoops says which version keeps ending.
func TestLoops(t *testing.T) {
	up := func(d time.Duration) *running { return &running{since: time.Now().Add(-d)} }
	now := time.Now()
	for name, c := range map[string]struct {
		v    version
		want bool
	}{
		"never ended":       {version{switched: now}, false},
		"ended once, is up": {version{switched: now, pause: firstPause, running: up(time.Second)}, false},
		"ended, is down":    {version{switched: now, pause: firstPause}, true},
		"ended twice":       {version{switched: now, pause: 2 * firstPause}, true},
		"was good":          {version{switched: now.Add(-fallBackTime), pause: 2 * firstPause}, false},
		"is up for now":     {version{switched: now, pause: 2 * firstPause, running: up(time.Second)}, true},
		"has come to rest":  {version{switched: now, pause: 2 * firstPause, running: up(lastPause + time.Second)}, false},
	} {
		require.Equal(t, c.want, c.v.loops(), name)
	}
}

// TestLeaveUndone: a version that could not be left after all has not failed for it, and one that could not be taken up again is
// as it was.
func TestLeaveUndone(t *testing.T) {
	begin := time.Now()
	before := version{name: "before"}
	now := version{name: "now", switched: begin, pause: lastPause, ended: "status 4", ends: 3}
	bad := version{name: "bad", state: codeserverpb.State_DRAINING, failed: "it ended", err: "it ended", switched: begin, pause: lastPause, ends: 2}
	for name, c := range map[string]struct {
		next    *version
		revived bool
	}{
		"a new one":           {next: &version{name: "next"}},
		"one that was failed": {next: &bad, revived: true},
	} {
		before, now, next := before, now, *c.next
		l := &location{name: "web", current: &now, previous: &before, versions: []*version{&now, &before}}
		move := &transition{l: l, v: &next, run: &running{}, revived: c.revived}
		move.apply()
		require.Equal(t, "it ended, hung or did not come up 3 times, until web was moved to "+next.name+"; the last time: status 4", now.failed, name)
		require.Same(t, &before, l.previous, name)
		require.Empty(t, next.failed, name)
		move.revert()
		require.Empty(t, now.failed, name)
		require.Same(t, &now, l.current, name)
		require.Equal(t, *c.next, next, name)
	}
}

// TestBlemish: a version that had failed is failed again when it is left soon after, and good once it has served for long.
func TestBlemish(t *testing.T) {
	for served, want := range map[time.Duration]string{0: "it ended", fallBackTime: ""} {
		had := &version{name: "bad", blemish: "it ended", switched: time.Now().Add(-served)}
		l := &location{name: "web", current: had, versions: []*version{had}}
		(&transition{l: l, v: &version{name: "next"}, run: &running{}}).apply()
		require.Equal(t, want, had.failed)
		require.Equal(t, want, l.blemishOf("bad"))
	}
}

// TestRestartsAreCounted has a version end, and then not come up any more: each start of it is counted.
func TestRestartsAreCounted(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	app := ending("bad")
	app["app/word.py"] += fmt.Sprintf("flag = %q\nif os.path.exists(flag): print('no', flush=True); raise SystemExit(5)\nopen(flag, 'w').close()\n", filepath.Join(t.TempDir(), "flag"))
	h.deploy(h.spec(app))
	eventually(t, func() bool { return h.version("web").GetUsage().GetRestarts() == 3 }, "it has ended, and twice not come up")
	eventually(t, func() bool { return h.version("web").GetState() == codeserverpb.State_FAILED }, "it has failed")
	require.Equal(t, "the version did not become ready: the process ended with status 4; it wrote last: no", h.version("web").GetLastEnding().GetReason(), "without the log")
}
