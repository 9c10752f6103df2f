package codeserver

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache/memory"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestAgain has another process of a version take over that a rollback went to, under load and without the cache that it came
// from: the version stays, nobody's request fails, and what a rollback goes to is as it was.
func TestAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	one := h.deploy(h.spec(webApp("one"))).GetLocation().GetCurrent()
	two := h.deploy(h.spec(webApp("two"))).GetLocation().GetCurrent()
	back, err := h.rollback("")
	require.NoError(t, err)
	address := back.GetLocation().GetAddress()
	h.cas = memory.New()
	h.restart()
	await(t, address, "one")
	pid := h.version("web").GetPid()
	stop := clients(address)
	d, err := h.anew()
	answers := stop()
	require.NoError(t, err)
	require.NotZero(t, answers["one"])
	require.Len(t, answers, 1, "%v", answers)
	require.False(t, d.GetUnchanged())
	require.Equal(t, one, d.GetLocation().GetCurrent())
	require.Equal(t, two, d.GetLocation().GetPrevious())
	require.Equal(t, address, d.GetLocation().GetAddress())
	require.NotEqual(t, pid, h.version("web").GetPid())
	eventually(t, func() bool { return errors.Is(syscall.Kill(int(pid), 0), syscall.ESRCH) }, "the process before ends")

	// With a canary the new process has a share first.
	pid = h.version("web").GetPid()
	_, err = h.anew(func(r *codeserverpb.RestartRequest) {
		r.Canary = &codeserverpb.Canary{Percent: 50, Duration: durationpb.New(200 * time.Millisecond)}
	})
	require.NoError(t, err)
	v := h.version("web")
	require.NotEqual(t, pid, v.GetPid())
	names := map[string]bool{}
	for _, st := range v.GetStages() {
		names[st.GetName()] = true
	}
	require.True(t, names["canary"] && names["switch"], "%v", v.GetStages())

	for code, change := range map[codes.Code]func(*codeserverpb.RestartRequest){
		codes.NotFound: func(r *codeserverpb.RestartRequest) { r.Location = "none" },
		codes.Aborted:  func(r *codeserverpb.RestartRequest) { r.IfCurrent = proto.String(two) },
	} {
		_, err = h.anew(change)
		require.Equal(t, code, status.Code(err), "%v", err)
	}
	for _, change := range []func(*codeserverpb.RestartRequest){
		func(r *codeserverpb.RestartRequest) { r.ReadyTimeout = durationpb.New(0) },
		func(r *codeserverpb.RestartRequest) { r.Canary = &codeserverpb.Canary{Percent: 100} },
	} {
		_, err = h.anew(change)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
	}
	require.Equal(t, v.GetPid(), h.version("web").GetPid())
}

// TestAgainIsNotNew: a version that has shown that it is good is not taken back when another process of it ends, as a new one would be.
func TestAgainIsNotNew(t *testing.T) {
	for served, want := range map[time.Duration]bool{time.Second: true, fallBackTime: false} {
		before, now := &version{name: "before"}, &version{name: "now", switched: time.Now().Add(-served)}
		l := &location{current: now, previous: before, versions: []*version{now, before}}
		v := &version{name: "now", ends: maxEnds}
		(&transition{l: l, v: v, run: &running{}, again: true}).apply()
		require.Same(t, v, l.current)
		require.Equal(t, want, l.isBad(v), served)
	}
}

// TestAgainFails has a version not come up another time: the process that serves stays, and the error says so. When that has ended
// the error does not.
func TestAgainFails(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	flag := filepath.Join(t.TempDir(), "flag")
	app := webApp("one")
	app["app/word.py"] += "import os\nflag = '" + flag + "'\nif os.path.exists(flag): raise RuntimeError('no more')\nopen(flag, 'w').close()\n"
	first := h.deploy(h.spec(app))
	pid := h.version("web").GetPid()
	_, err := h.anew()
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "web is served by the process before: the version did not become ready")
	require.ErrorContains(t, err, "RuntimeError: no more")
	require.Equal(t, "one", h.get(first, "/"))
	require.Equal(t, pid, h.version("web").GetPid())
	require.Contains(t, h.s.messages("web")[0].GetFailure().GetError(), "by the process before")
	eventually(t, func() bool { return len(h.s.messages("web")[0].GetVersions()) == 1 }, "nothing is left of it")

	require.NoError(t, syscall.Kill(int(pid), syscall.SIGKILL))
	eventually(t, func() bool { return h.version("web").GetState() == codeserverpb.State_FAILED }, "it has ended")
	_, err = h.anew()
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
	require.NotContains(t, err.Error(), "process before")
}
