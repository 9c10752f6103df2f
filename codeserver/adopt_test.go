package codeserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/sockets"
	"github.com/stretchr/testify/require"
)

func adopting(o *Options) { o.AdoptWithin, o.Sockets = time.Minute, new(sockets.Set) }

// leave ends the server and leaves the versions.
func (h *host) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = h.Client.Close()
	h.g.Stop()
	require.NoError(h.t, h.s.Leave(ctx))
	h.s = nil
	h.opts.Sockets = h.opts.Sockets.Next()
}

// pidOf returns the process of a location's current version.
func (h *host) pidOf(location string) int { return int(h.version(location).GetPid()) }

func killed(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, func() bool { return ended(pid) }, "it ends")
}

// ended reports whether a process has ended, reaped or not.
func ended(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

func shimOf(t *testing.T, pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	var state string
	var parent int
	_, err = fmt.Sscan(string(b[bytes.LastIndexByte(b, ')')+1:]), &state, &parent)
	require.NoError(t, err)
	return parent
}

// TestLeave restarts a codeserver twice: the same processes serve, nobody who asks is refused, what was being answered is
// answered to its end, and the log, the limits, deploys and crashes go on as before.
func TestLeave(t *testing.T) {
	t.Parallel()
	h := newHost(t, adopting)
	app := webApp("one")
	app["app/word.py"] += "import os, threading, time\n" + `def ticks():
    for i in range(10**6):
        os.write(1, b"\ntick %d\n" % i)
        time.sleep(0.01)
if __name__ != "__main__": threading.Thread(target=ticks, daemon=True).start()
`
	d := h.deploy(h.spec(app, func(s *codeserverpb.VersionSpec) { s.Limits = &codeserverpb.Limits{Pids: 100} }))
	other := h.deployTo("other", h.spec(webApp("other")))
	address := d.GetLocation().GetAddress()
	pid, isolation := h.get(d, "/pid"), h.version("web").GetIsolation()
	require.NotEmpty(t, isolation)
	stop := clients(address)
	for range 2 {
		slow := make(chan string, 1)
		go func() {
			body, err := get(address, "/slow")
			slow <- fmt.Sprint(body, err)
		}()
		eventually(t, func() bool { return h.version("web").GetUsage().GetActiveRequests() > 1 }, "it is under way")
		h.leave()
		require.Equal(t, strings.Repeat("one", 40)+"<nil>", <-slow)
		waiting := make(chan string, 1)
		go func() {
			body, err := get(other.GetLocation().GetAddress(), "/")
			waiting <- fmt.Sprint(body, err)
		}()
		h.open()
		require.Equal(t, "other<nil>", <-waiting)
		require.Equal(t, pid, h.get(d, "/pid"))
		v := h.version("web")
		require.Equal(t, codeserverpb.State_READY, v.GetState())
		require.Equal(t, isolation, v.GetIsolation())
		require.Positive(t, v.GetUsage().GetMemoryBytes())
	}
	answers := stop()
	require.Zero(t, answers["failed"])
	require.NotZero(t, answers["one"])

	// No line of the log is missing or there twice.
	log := readFile(t, h.s.logPath(h.s.locations["web"], h.s.locations["web"].current))
	next := 0
	for line := range strings.Lines(log) {
		if _, n, ok := strings.Cut(strings.TrimSpace(line), " tick "); ok {
			require.Equal(t, strconv.Itoa(next), n)
			next++
		}
	}
	require.Greater(t, next, 50)
	require.Equal(t, 2, strings.Count(log, "has taken this process over"))

	two := h.deploy(h.spec(webApp("two")))
	require.Equal(t, address, two.GetLocation().GetAddress())
	require.Equal(t, "two", h.get(two, "/"))
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 2 }, "the one before has ended")
	_, _ = get(other.GetLocation().GetAddress(), "/crash")
	await(t, other.GetLocation().GetAddress(), "other")
}

// TestAdoptKilled kills the codeserver: its versions serve on for the next one.
func TestAdoptKilled(t *testing.T) {
	t.Setenv(adoptEnv, "1m")
	dir := t.TempDir()
	server := startChild(t, dir)
	defer func() { server.kill() }()
	cas := diskCache(t, dir)
	d, err := deployWith(t.Context(), server, webRequest(makeSpec(t, cas, webApp("one"))))
	require.NoError(t, err)
	address := d.GetLocation().GetAddress()
	pid, err := get(address, "/pid")
	require.NoError(t, err)
	for range 3 {
		server.kill()
		require.NotEmpty(t, processesOf(dir))
		server = startChild(t, dir)
		again, err := get(address, "/pid")
		require.NoError(t, err)
		require.Equal(t, pid, again)
	}
	// One that goes for good.
	server.kill()
	require.NoError(t, Stop(t.Context(), filepath.Join(dir, "state"), nil))
	require.Empty(t, processesOf(dir))
	left, err := os.ReadDir(filepath.Join(dir, "state", "run"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestStop ends a codeserver in a process of its own, and its versions.
func TestStop(t *testing.T) {
	t.Setenv(adoptEnv, "1m")
	dir := t.TempDir()
	server := startChild(t, dir)
	defer server.kill()
	_, err := deployWith(t.Context(), server, webRequest(makeSpec(t, diskCache(t, dir), webApp("one"))))
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		_ = server.cmd.Wait()
		close(ended)
	}()
	require.NoError(t, Stop(t.Context(), filepath.Join(dir, "state"), nil))
	<-ended
	require.Empty(t, processesOf(dir))
	require.ErrorContains(t, Stop(t.Context(), dir, nil), "is not the state directory of a codeserver")
}

// TestOrphans changes things while no codeserver is there: what has no place any more is ended, what is gone is started.
func TestOrphans(t *testing.T) {
	t.Parallel()
	h := newHost(t, adopting)
	names := []string{"ended", "shim", "changed", "moved", "removed", "good"}
	address, pid := map[string]string{}, map[string]int{}
	for _, name := range names {
		address[name] = h.deployTo(name, h.spec(webApp(name))).GetLocation().GetAddress()
		pid[name] = h.pidOf(name)
	}
	source := func(name string) string {
		v := h.s.locations[name].current
		return filepath.Join(h.opts.State, "store", "trees", v.source.Hash()+"-source")
	}
	moved, changed := source("moved"), source("changed")
	h.leave()
	killed(t, pid["ended"])
	killed(t, shimOf(t, pid["shim"]))
	require.NoError(t, os.Rename(moved, moved+"-aside"))
	word := filepath.Join(changed, "app", "word.py")
	require.NoError(t, os.Chmod(word, 0o644))
	require.NoError(t, os.WriteFile(word, []byte("WORD = 'wrong'\n"), 0o644))
	var st savedState
	require.NoError(t, json.Unmarshal([]byte(readFile(t, filepath.Join(h.opts.State, "state.json"))), &st))
	for i, l := range st.Locations {
		if l.Name == "removed" {
			st.Locations = append(st.Locations[:i], st.Locations[i+1:]...)
			break
		}
	}
	b, err := json.Marshal(st)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(h.opts.State, "state.json"), b, 0o600))

	h.open()
	for _, name := range []string{"ended", "shim", "changed", "moved", "good"} {
		await(t, address[name], name)
		eventually(t, func() bool { return (h.pidOf(name) == pid[name]) == (name == "good") }, name)
	}
	for _, name := range []string{"ended", "shim", "changed", "moved", "removed"} {
		eventually(t, func() bool { return ended(pid[name]) }, name)
	}
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 5 }, "no other process is there")
	require.Equal(t, "changed", h.word(address["changed"]))
}

func (h *host) word(address string) string {
	body, err := get(address, "/")
	require.NoError(h.t, err)
	return body
}

// TestDrainingOrphans has versions that were replaced end after a restart: one is kept warm for a rollback, one is not.
func TestDrainingOrphans(t *testing.T) {
	t.Parallel()
	if !memoryToSpare() {
		t.Skip("this machine has no memory to keep a version warm")
	}
	h := newHost(t, adopting, func(o *Options) { o.KeepWarm = time.Hour })
	d := h.deploy(h.spec(webApp("one")))
	one := h.pidOf("web")
	h.deploy(h.spec(webApp("two")))
	two := h.pidOf("web")
	warm := func() bool {
		v := h.s.messages("web")[0].GetVersions()
		return len(v) == 2 && v[1].GetState() == codeserverpb.State_READY && v[1].GetPid() == int64(one)
	}
	eventually(t, warm, "the one before is kept")
	h.leave()
	h.open()
	require.Equal(t, two, h.pidOf("web"))
	eventually(t, warm, "it still is")
	_, err := h.rollback("")
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(one), h.get(d, "/pid"), "it comes back")
	h.leave()
	h.opts.KeepWarm = 0
	h.open()
	require.Equal(t, strconv.Itoa(one), h.get(d, "/pid"))
	eventually(t, func() bool { return ended(two) }, "the other one is not kept any more")
	_, _ = get(d.GetLocation().GetAddress(), "/crash")
	await(t, d.GetLocation().GetAddress(), "one")
}

// TestCanaryOrphan leaves while a version is on trial: the old one serves, the other one ends.
func TestCanaryOrphan(t *testing.T) {
	t.Parallel()
	h := newHost(t, adopting)
	d := h.deploy(h.spec(webApp("one")))
	one := h.pidOf("web")
	done := make(chan error, 1)
	go func() {
		_, err := deployWith(t.Context(), h.Client, h.canary(webApp("two"), time.Hour))
		done <- err
	}()
	eventually(t, func() bool { return h.s.messages("web")[0].GetCanary() != "" }, "it is tried")
	two := int(h.s.messages("web")[0].GetVersions()[0].GetPid())
	h.leave()
	require.Error(t, <-done)
	h.open()
	require.Equal(t, one, h.pidOf("web"))
	eventually(t, func() bool { return ended(two) }, "it ends")
	for range 20 {
		require.Equal(t, "one", h.get(d, "/"))
	}
	require.Len(t, h.s.messages("web")[0].GetVersions(), 1)
}

// TestStuckShim leaves a version whose shim was stopped: another process of the version is started, and the stuck ones end.
func TestStuckShim(t *testing.T) {
	t.Parallel()
	h := newHost(t, adopting)
	d := h.deploy(h.spec(webApp("one")))
	pid := h.pidOf("web")
	shim := shimOf(t, pid)
	h.leave()
	require.NoError(t, syscall.Kill(shim, syscall.SIGSTOP))
	h.open()
	await(t, d.GetLocation().GetAddress(), "one")
	require.NotEqual(t, pid, h.pidOf("web"))
	eventually(t, func() bool { return ended(pid) && ended(shim) }, "they end")
}

// TestInterrupted finds processes as a codeserver leaves them that was killed in the middle of a switch.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	h := newHost(t, adopting)
	h.deploy(h.spec(webApp("one")))
	d := h.deployTo("other", h.spec(webApp("other")))
	as := func(location string, r role) {
		h.s.mu.Lock()
		run := h.s.locations[location].current.running
		h.s.mu.Unlock()
		h.s.note(run, r)
	}
	one, other := h.pidOf("web"), h.pidOf("other")
	as("web", starting)   // the state says that it serves, so it was ready
	as("other", draining) // a rollback to it was on disk, and no more
	h.leave()
	h.open()
	await(t, d.GetLocation().GetAddress(), "other")
	eventually(t, func() bool { return h.version("web").GetState() == codeserverpb.State_READY }, "it serves")
	require.Equal(t, one, h.pidOf("web"))
	require.Equal(t, other, h.pidOf("other"))

	// A version that does not serve, and never has, is not wanted.
	h.deploy(h.spec(webApp("two")))
	require.Equal(t, "two", h.word(h.s.messages("web")[0].GetAddress()))
	as("web", starting)
	two := h.pidOf("web")
	state := filepath.Join(h.opts.State, "state.json")
	var st savedState
	require.NoError(t, json.Unmarshal([]byte(readFile(t, state)), &st))
	h.leave()
	for i := range st.Locations {
		if l := &st.Locations[i]; l.Name == "web" {
			l.Current, l.Previous = l.Previous, ""
		}
	}
	b, err := json.Marshal(st)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(state, b, 0o600))
	h.open()
	await(t, h.s.messages("web")[0].GetAddress(), "one")
	eventually(t, func() bool { return ended(two) }, "it ends")
}

// TestAdoptShutIn leaves versions that have users of their own, one that was started by itself and one that was forked: they
// are taken over in their cgroups, and end as others do.
func TestAdoptShutIn(t *testing.T) {
	t.Parallel()
	h := newHost(t, adopting, withUsers(t))
	cold := h.deployTo("cold", h.spec(webApp("cold")))
	h.deployTo("forked", h.spec(webApp("first")))
	h.s.zygotes.Wait()
	forked := h.deployTo("forked", h.spec(webApp("forked")))
	require.True(t, h.version("forked").GetForked())
	for range 2 {
		before := map[string]int{"cold": h.pidOf("cold"), "forked": h.pidOf("forked")}
		h.leave()
		h.open()
		for name, pid := range before {
			v := h.version(name)
			require.Equal(t, pid, int(v.GetPid()), name)
			require.Equal(t, name == "forked", v.GetForked())
			require.Contains(t, strings.Join(v.GetIsolation(), "\n"), "user: ")
			require.Positive(t, v.GetUsage().GetMemoryBytes())
		}
	}
	require.Equal(t, "cold", h.get(cold, "/"))
	require.Equal(t, "forked", h.get(forked, "/"))
	old := h.pidOf("forked")
	again := h.deployTo("forked", h.spec(webApp("again")))
	require.Equal(t, "again", h.get(again, "/"))
	eventually(t, func() bool { return ended(old) }, "the one before ends")
	killed(t, h.pidOf("forked"))
	await(t, forked.GetLocation().GetAddress(), "again")

	// One that nobody comes for, and a shim that was killed meanwhile.
	pids := []int{h.pidOf("cold"), h.pidOf("forked")}
	shims := h.shims()
	require.Len(t, shims, 2)
	h.leave()
	for _, shim := range shims {
		killed(t, shim)
	}
	for _, pid := range pids {
		eventually(t, func() bool { return ended(pid) }, "it ends with its shim")
	}
	h.open()
	await(t, cold.GetLocation().GetAddress(), "cold")
	await(t, forked.GetLocation().GetAddress(), "again")
	require.NoError(t, h.s.Close(t.Context()))
	require.Empty(t, h.shims())
}

// shims lists the processes that watch over versions of this host.
func (h *host) shims() []int {
	var found []int
	groups := fmt.Sprintf("/pexpress-%x", sha256.Sum256([]byte(h.opts.State)))[:20]
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if bytes.Contains(env, []byte("PEXPRESS_WORKER_GROUPS=")) && bytes.Contains(env, []byte(groups)) && !ended(pid) {
			found = append(found, pid)
		}
	}
	return found
}

// TestNobodyAdopts leaves versions that no codeserver comes for.
func TestNobodyAdopts(t *testing.T) {
	t.Parallel()
	h := newHost(t, adopting, func(o *Options) { o.AdoptWithin = 300 * time.Millisecond })
	h.deploy(h.spec(webApp("one")))
	h.leave()
	require.NotEmpty(t, processesOf(h.opts.State))
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 0 }, "it ends")
	h.open()
	await(t, h.s.messages("web")[0].GetAddress(), "one")
}

// TestNotAdoptable leaves nothing if versions are to end with the codeserver.
func TestNotAdoptable(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.deploy(h.spec(webApp("one")))
	require.NoDirExists(t, h.s.runDir())
	require.NoError(t, h.s.Leave(t.Context()))
	require.Empty(t, processesOf(h.opts.State))
}

// TestReadRecord refuses what no codeserver has written.
func TestReadRecord(t *testing.T) {
	for _, bad := range []string{``, `{`, `[]`, `{"port":80}`, `{"port":0,"role":"serving"}`, `{"port":70000,"role":"serving"}`, `{"port":80,"role":"king"}`} {
		_, err := readRecord(json.RawMessage(bad))
		require.ErrorContains(t, err, "it is not known what it is", bad)
	}
	_, err := readRecord(nil)
	require.Error(t, err)
	_, err = readRecord(json.RawMessage(`{"port":80,"role":"serving","from":"a later codeserver"}`))
	require.NoError(t, err)
}
