package codeserver

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestWatchUsage: usage is sent again where that was asked for, and only there; a location that is gone is said to be.
func TestWatchUsage(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	d := h.deploy(h.spec(webApp("one")))
	busy, err := h.Watch(t.Context(), &codeserverpb.WatchRequest{UsageEvery: durationpb.New(leastEvery)})
	require.NoError(t, err)
	quiet, err := h.Watch(t.Context(), &codeserverpb.WatchRequest{})
	require.NoError(t, err)
	for _, first := range []func() (*codeserverpb.Location, error){busy.Recv, quiet.Recv} {
		m, err := first()
		require.NoError(t, err)
		require.Equal(t, "web", m.GetName())
	}
	var last *codeserverpb.Usage
	for last.GetRequests() < 3 {
		h.get(d, "/")
		m, err := busy.Recv()
		require.NoError(t, err)
		now := m.GetVersions()[0].GetUsage()
		if last != nil {
			require.Greater(t, now.GetMeasuredAt().AsTime(), last.GetMeasuredAt().AsTime())
		}
		last = now
	}
	require.Positive(t, last.GetLatencyP50().AsDuration())
	_, err = h.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "web"})
	require.NoError(t, err)
	m, err := quiet.Recv()
	require.NoError(t, err)
	require.Equal(t, "web", m.GetName())
	for len(m.GetVersions()) > 0 { // of which some are ending
		require.Empty(t, m.GetCurrent(), "three requests were no change")
		m, err = quiet.Recv()
		require.NoError(t, err)
	}
	require.True(t, proto.Equal(&codeserverpb.Location{Name: "web"}, m), "%v", m)

	for _, every := range []*durationpb.Duration{durationpb.New(time.Millisecond), {Seconds: -1}, {Nanos: -1, Seconds: 1}} {
		refused, err := h.Watch(t.Context(), &codeserverpb.WatchRequest{UsageEvery: every})
		require.NoError(t, err)
		_, err = refused.Recv()
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
	}
}

// TestAccounts: what a process has used that ended is not forgotten, by its version nor by its location.
func TestAccounts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	app := webApp("one")
	app["app/work.py"] = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"
	app["app/__main__.py"] = "import app.work\n" + app["app/__main__.py"]
	d := h.deploy(h.spec(app))
	pid, err := strconv.Atoi(h.get(d, "/pid"))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	usage := func() *codeserverpb.Usage { return h.s.messages("web")[0].GetVersions()[0].GetUsage() }
	eventually(t, func() bool { return usage().GetRestarts() == 1 && usage().GetProcesses() == 1 }, "it is started again")
	await(t, d.GetLocation().GetAddress(), "one")
	require.Greater(t, usage().GetCpu().AsDuration(), time.Second, "of both")
	require.Positive(t, usage().GetMemoryPeakBytes())
	h.deploy(h.spec(webApp("two")))
	eventually(t, func() bool {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		return h.s.locations["web"].past > time.Second
	}, "the replaced one has ended")
	require.GreaterOrEqual(t, h.s.locations["web"].stats.Counts().Begun-usage().GetRequests(), int64(2), "of the version before")
}
