package codeserver

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
)

func probed(s *codeserverpb.VersionSpec) {
	s.Entry.Readiness = &codeserverpb.Readiness{Probe: &codeserverpb.Readiness_HttpPath{HttpPath: "/"}}
}

func impatient(o *Options) {
	o.health = healthTimes{every: 50 * time.Millisecond, timeout: time.Second, silent: 3 * time.Second, busy: time.Hour}
}

// TestHung stops a version's process: another of the same version takes its place.
func TestHung(t *testing.T) {
	t.Parallel()
	h := newHost(t, impatient)
	d := h.deploy(h.spec(webApp("one"), probed))
	pid := h.get(d, "/pid")
	n, err := strconv.Atoi(pid)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(n, syscall.SIGSTOP))
	eventually(t, func() bool { // a request that the one has begun which hangs fails with it
		now, err := get(d.GetLocation().GetAddress(), "/pid")
		return err == nil && now != pid
	}, "another one serves")
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 1 }, "the one that hung is ended")
	require.EqualValues(t, 1, h.s.messages("web")[0].GetVersions()[0].GetUsage().GetRestarts())
	eventually(t, func() bool { return len(h.s.messages("web")[0].GetVersions()) == 1 }, "the version is there once")
	log, err := os.ReadFile(h.s.logPath(h.s.locations["web"], h.s.locations["web"].current))
	require.NoError(t, err)
	require.Contains(t, string(log), "it has not answered for")
	require.Contains(t, h.version("web").GetLastEnding().GetReason(), "it has not answered for")
	require.WithinDuration(t, time.Now(), h.version("web").GetLastEnding().GetTime().AsTime(), time.Minute)
}

// TestBusy has a version compute and answer nobody: it is left alone, and answers after.
func TestBusy(t *testing.T) {
	t.Parallel()
	h := newHost(t, impatient)
	app := webApp("one")
	// A sum in C does not give up the interpreter lock.
	app["app/__main__.py"] = strings.Replace(webMain, `if self.path == "/slow":`, `if self.path == "/busy":
            import time
            end = time.process_time() + 6
            while time.process_time() < end:
                sum(range(30000000))
        if self.path == "/slow":`, 1)
	d := h.deploy(h.spec(app, probed))
	pid := h.get(d, "/pid")
	_, _ = get(d.GetLocation().GetAddress(), "/busy")
	require.Equal(t, pid, h.get(d, "/pid"))
}

// TestUnwell has a version say that it cannot serve: it is not hung.
func TestUnwell(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.deploy(h.spec(webApp("one"), probed))
	l := h.s.locations["web"]
	unwell := &version{spec: &codeserverpb.VersionSpec{Entry: &codeserverpb.Entry{Readiness: &codeserverpb.Readiness{
		Probe: &codeserverpb.Readiness_HttpPath{HttpPath: "/none"},
	}}}, stats: l.current.stats}
	ask, done, err := newProbe(unwell.spec.GetEntry(), l.current.running.port)
	require.NoError(t, err)
	defer done()
	require.ErrorIs(t, ask(t.Context()), errUnwell)
}

func TestCPU(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done & wait")
	require.NoError(t, cmd.Start())
	defer func() {
		for _, p := range worker.Descendants(cmd.Process.Pid) {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	eventually(t, func() bool { return worker.CPU(cmd.Process.Pid) > 100*time.Millisecond }, "what a child uses counts")
	require.Zero(t, worker.CPU(1<<30))
}

// TestFallBack deploys a version that becomes ready and ends, again and again: the location returns to the one before.
func TestFallBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	good := h.deploy(h.spec(webApp("one"))).GetLocation().GetCurrent()
	bad := h.spec(ending("two"))
	d := h.deploy(bad)
	address, name := d.GetLocation().GetAddress(), d.GetLocation().GetCurrent()
	back := func() {
		t.Helper()
		require.Eventually(t, func() bool { return h.s.messages("web")[0].GetCurrent() == good }, time.Minute, 10*time.Millisecond)
		await(t, address, "one")
		for _, v := range h.s.messages("web")[0].GetVersions() {
			if v.GetName() == name {
				require.Equal(t, codeserverpb.State_FAILED, v.GetState())
				require.Contains(t, v.GetError(), "5 times")
				require.Contains(t, v.GetError(), "status 4")
				return
			}
		}
		t.Fatal("the version that failed is not shown")
	}
	back()
	log, err := os.ReadFile(h.s.logPath(h.s.locations["web"], &version{name: name}))
	require.NoError(t, err)
	require.Contains(t, string(log), "status 4; it is started again in 4s")
	require.Contains(t, string(log), "status 4; that was 5 times: the version before, "+good[:12])
	require.NotContains(t, string(log), "started again in 8s")
	require.Less(t, h.idleSince(lastTime(t, string(log))), 4*time.Second, "it is taken back without a pause")
	_, err = h.rollback("")
	require.ErrorContains(t, err, "served no other version before", "what failed is nothing to go back to")
	h.restart()
	back()
	require.Equal(t, name, h.deploy(bad).GetLocation().GetCurrent(), "who insists may deploy it again")
}

// lastTime returns when the last line of a log was written.
func lastTime(t *testing.T, log string) time.Time {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	word, _, _ := strings.Cut(lines[len(lines)-1], " ")
	at, err := time.Parse(timeLayout, word)
	require.NoError(t, err)
	return at
}

// idleSince returns how long after a time the version that serves had not begun to start.
func (h *host) idleSince(at time.Time) time.Duration {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	v := h.s.locations["web"].current
	idle := v.switched.Sub(at)
	for _, st := range v.stages {
		idle -= st.GetTook().AsDuration()
	}
	return idle
}

// TestIsBad says which version is taken back: one that has served for long, or has none before it, is started again.
func TestIsBad(t *testing.T) {
	before, now := &version{name: "before"}, time.Now()
	for name, c := range map[string]struct {
		v        version
		previous *version
		bad      bool
	}{
		"bad":       {version{ends: maxEnds, switched: now}, before, true},
		"too few":   {version{ends: maxEnds - 1, switched: now}, before, false},
		"long ago":  {version{ends: maxEnds, switched: now.Add(-fallBackTime)}, before, false},
		"no before": {version{ends: maxEnds, switched: now}, nil, false},
	} {
		require.Equal(t, c.bad, (&location{previous: c.previous}).isBad(&c.v), name)
	}
}

// TestPauseOf: only the time that makes a version one to be taken back is not followed by a pause. When the version before
// does not come up either both are tried with pauses.
func TestPauseOf(t *testing.T) {
	before, now := &version{name: "before"}, time.Now()
	for name, c := range map[string]struct {
		ends     int
		previous *version
		pause    time.Duration
	}{
		"too few":   {maxEnds - 1, before, lastPause},
		"due":       {maxEnds, before, 0},
		"once more": {maxEnds + 1, before, lastPause},
		"no before": {maxEnds, nil, lastPause},
	} {
		v := &version{ends: c.ends, switched: now, pause: lastPause}
		require.Equal(t, c.pause, (&location{previous: c.previous}).pauseOf(v), name)
	}
}

// TestTarget: a rollback that has nowhere to go names what can be done, if there is something.
func TestTarget(t *testing.T) {
	now, older, bad := &version{name: "now"}, &version{name: "older"}, &version{name: "bad", failed: "it ended"}
	l := &location{name: "web", current: now, versions: []*version{now, bad}}
	_, err := l.target("")
	require.ErrorIs(t, err, errRefused)
	require.ErrorContains(t, err, "web served no other version before but bad, which failed: `pexpress status web` says why, and `pexpress rollback web VERSION` goes")
	l.versions = append(l.versions, older)
	_, err = l.target("")
	require.ErrorIs(t, err, errRefused)
	require.ErrorContains(t, err, "by itself but bad, which failed: name one that `pexpress status web` lists, as in `pexpress rollback web VERSION`")
	v, err := l.target("older")
	require.NoError(t, err)
	require.Same(t, older, v)
	v, err = l.target("bad")
	require.NoError(t, err)
	require.Same(t, bad, v, "who insists may go back to it")
	l.previous = older
	v, err = l.target("")
	require.NoError(t, err)
	require.Same(t, older, v)
	l = &location{name: "web", current: now, versions: []*version{now}}
	_, err = l.target("")
	require.True(t, strings.HasSuffix(err.Error(), "web served no other version before"), "%v", err)
}
