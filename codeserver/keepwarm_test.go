package codeserver

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestKeepWarm rolls back to a version that was kept: it is the same process, there and back, and only one is kept.
func TestKeepWarm(t *testing.T) {
	t.Parallel()
	if !memoryToSpare() {
		t.Skip("this machine has no memory to keep a version warm")
	}
	h := newHost(t, func(o *Options) { o.KeepWarm = time.Hour })
	d := h.deploy(h.spec(webApp("one")))
	one := h.get(d, "/pid")
	h.deploy(h.spec(webApp("two")))
	two := h.get(d, "/pid")
	warm := func() bool {
		v := h.s.messages("web")[0].GetVersions()
		return len(v) == 2 && v[1].GetState() == codeserverpb.State_READY && v[1].GetPid() != 0
	}
	eventually(t, warm, "the one before is kept")
	_, err := h.rollback("")
	require.NoError(t, err)
	require.Equal(t, one, h.get(d, "/pid"))
	eventually(t, warm, "the other one is kept")
	h.deploy(h.spec(webApp("two")))
	require.Equal(t, two, h.get(d, "/pid"), "a deploy of what is warm starts nothing either")

	h.deploy(h.spec(webApp("three")))
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 2 }, "one is kept, not two")
	eventually(t, func() bool { // it may be a zombie for a moment
		_, err := os.Stat("/proc/" + one)
		return errors.Is(err, os.ErrNotExist)
	}, "the first has ended")

	// One that ends while it is warm is not started again, and a rollback to it starts it.
	pid := h.s.messages("web")[0].GetVersions()[1].GetPid()
	p, err := os.FindProcess(int(pid))
	require.NoError(t, err)
	require.NoError(t, p.Kill())
	eventually(t, func() bool { return h.s.messages("web")[0].GetVersions()[1].GetState() == codeserverpb.State_STOPPED }, "it has ended")
	_, err = h.rollback("")
	require.NoError(t, err)
	require.Equal(t, "two", h.get(d, "/"))
	require.NotEqual(t, two, h.get(d, "/pid"))

	// One that came back is supervised as before.
	_, err = h.rollback("")
	require.NoError(t, err)
	_, _ = get(d.GetLocation().GetAddress(), "/crash")
	await(t, d.GetLocation().GetAddress(), "three")
	_, err = h.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "web"})
	require.NoError(t, err)
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 0 }, "a removed location keeps nothing warm")
}

// TestRevivedEnds has the process that a rollback goes back to end just before the switch: clients are told that no version
// is up, and then it is started again.
func TestRevivedEnds(t *testing.T) {
	t.Parallel()
	if !memoryToSpare() {
		t.Skip("this machine has no memory to keep a version warm")
	}
	h := newHost(t, func(o *Options) { o.KeepWarm = time.Hour })
	one := h.deploy(h.spec(webApp("one")))
	h.deploy(h.spec(webApp("two")))
	h.s.mu.Lock()
	l := h.s.locations["web"]
	h.s.mu.Unlock()
	release := h.s.takeOwn(l)
	v, run := h.s.comeBack(l, one.GetLocation().GetCurrent())
	require.NotNil(t, v)
	require.NoError(t, syscall.Kill(run.worker.PID(), syscall.SIGKILL))
	eventually(t, func() bool {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		return v.running == nil
	}, "its end is noticed")
	require.NoError(t, h.s.switchAll([]*transition{{l: l, v: v, run: run, revived: true}}))
	_, err := get(l.address, "/")
	require.ErrorContains(t, err, "503")
	release()
	await(t, l.address, "one")
}
