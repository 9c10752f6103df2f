package codeserver

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/proxy"
)

// clients ask an address until the returned function is called, which returns how often each answer came.
func clients(address string) (stop func() map[string]int) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				got, err := get(address, "/")
				if err != nil {
					got = "failed"
				}
				mu.Lock()
				answers[got]++
				mu.Unlock()
			}
		})
	}
	return func() map[string]int {
		cancel()
		all.Wait()
		return answers
	}
}

func (h *host) canary(files map[string]string, lasts time.Duration) *codeserverpb.DeployRequest {
	r := webRequest(h.spec(files))
	r.Canary = &codeserverpb.Canary{Percent: 50, Duration: durationpb.New(lasts)}
	return r
}

// failing answers 500 once it is ready, and goes on when it is asked to end.
func failing() map[string]string {
	app := webApp("bad")
	app["app/word.py"] += "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
	app["app/__main__.py"] = strings.Replace(webMain, "200 if body else 404", "500", 1)
	return app
}

// TestCanary tries a version that is good, which then serves.
func TestCanary(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	d := h.deploy(h.spec(webApp("one")))
	stop := clients(d.GetLocation().GetAddress())
	d, err := h.try(h.canary(webApp("two"), 2*time.Second))
	answers := stop()
	require.NoError(t, err)
	require.Equal(t, "two", h.get(d, "/"))
	require.Empty(t, d.GetLocation().GetCanary())
	require.Zero(t, answers["failed"])
	require.NotZero(t, answers["one"])
	require.NotZero(t, answers["two"])
	v := d.GetLocation().GetVersions()[0]
	names := map[string]bool{}
	for _, st := range v.GetStages() {
		names[st.GetName()] = true
		if st.GetName() == "canary" {
			require.Regexp(t, `^judged by \d{2,} answers$`, st.GetNote())
		}
	}
	require.True(t, names["ready"] && names["canary"] && names["switch"], "%v", v.GetStages())
}

// TestCanaryUnjudged tries a version that nobody asks anything: it serves, and nobody is told that it was found good.
func TestCanaryUnjudged(t *testing.T) {
	t.Parallel()
	log := new(lockedBuffer)
	h := newHost(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	h.deploy(h.spec(webApp("one")))
	d, err := h.try(h.canary(webApp("two"), 200*time.Millisecond))
	require.NoError(t, err)
	require.Equal(t, "two", h.get(d, "/"))
	require.True(t, slices.ContainsFunc(d.GetLocation().GetVersions()[0].GetStages(), func(st *codeserverpb.Stage) bool {
		return st.GetNote() == "too few answers to judge it by: 0 of 20"
	}), "%v", d)
	require.Regexp(t, `level=WARN msg="a canary had too few requests.* location=web .*answers=0`, log.String())
}

// TestCanaryWithdrawn tries versions that fail their requests, end, or lose whoever deploys them.
func TestCanaryWithdrawn(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	d := h.deploy(h.spec(webApp("one")))
	address := d.GetLocation().GetAddress()
	before, err := os.ReadFile(h.s.statePath())
	require.NoError(t, err)
	settled := func() {
		t.Helper()
		eventually(t, func() bool {
			l := h.s.messages("web")[0]
			return l.GetCanary() == "" && len(l.GetVersions()) == 1 && len(processesOf(h.opts.State)) == 1
		}, "nothing is left of it")
		require.Equal(t, "one", h.get(d, "/"))
		now, err := os.ReadFile(h.s.statePath())
		require.NoError(t, err)
		require.Equal(t, string(before), string(now))
	}

	stop := clients(address)
	_, err = h.try(h.canary(failing(), time.Hour))
	stop()
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "requests failed")
	for range 40 {
		require.Equal(t, "one", h.get(d, "/"), "it gets no more requests, though it is there still")
	}
	settled()

	// waiting returns a deploy under way whose version is being tried.
	waiting := func(ctx context.Context) (pid int64, done chan error) {
		done = make(chan error, 1)
		go func() {
			_, err := deployWith(ctx, h.Client, h.canary(webApp("two"), time.Hour))
			done <- err
		}()
		eventually(t, func() bool {
			l := h.s.messages("web")[0]
			pid = l.GetVersions()[0].GetPid()
			return l.GetCanary() == l.GetVersions()[0].GetName() && l.GetCanaryPercent() == 50
		}, "it is shown")
		return pid, done
	}
	pid, done := waiting(t.Context())
	p, err := os.FindProcess(int(pid))
	require.NoError(t, err)
	require.NoError(t, p.Kill())
	require.ErrorContains(t, <-done, "its process ended")
	settled()

	ctx, cancel := context.WithCancel(t.Context())
	_, done = waiting(ctx)
	cancel()
	require.Error(t, <-done)
	settled()

	_, done = waiting(t.Context())
	h.restart()
	require.Error(t, <-done)
	await(t, address, "one")
	require.Len(t, h.s.messages("web")[0].GetVersions(), 1)
}

// TestCanaryUnkept tries a version that is good when the state cannot be written: the trial is over with the deploy.
func TestCanaryUnkept(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	d := h.deploy(h.spec(webApp("one")))
	done := make(chan error, 1)
	go func() {
		_, err := deployWith(t.Context(), h.Client, h.canary(webApp("two"), 2*time.Second))
		done <- err
	}()
	eventually(t, func() bool { return h.s.messages("web")[0].GetCanary() != "" }, "it is tried")
	require.NoError(t, os.Remove(h.s.statePath()))
	require.NoError(t, os.Mkdir(h.s.statePath(), 0o700)) // no file can take its place
	require.ErrorContains(t, <-done, "keep the state")
	require.Empty(t, h.s.messages("web")[0].GetCanary())
	for range 40 {
		require.Equal(t, "one", h.get(d, "/"), "it gets no more requests, though it may be there still")
	}
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 1 }, "nothing is left of it")
	eventually(t, func() bool { return len(h.s.messages("web")[0].GetVersions()) == 1 }, "nor shown")
	require.NoError(t, os.Remove(h.s.statePath()))
	require.Equal(t, "two", h.get(h.deploy(h.spec(webApp("two"))), "/"))
}

func TestVerdict(t *testing.T) {
	at := func(answered, failed int64) (before, after proxy.Counts) {
		return proxy.Counts{Begun: 7, Answered: 5, Failed: 3}, proxy.Counts{Begun: 7 + answered, Answered: 5 + answered, Failed: 3 + failed}
	}
	for name, c := range map[string]struct {
		answered, failed int64
		percent          float64
	}{
		"none": {0, 0, 0}, "some": {200, 3, 1.5}, "all": {20, 20, 100},
	} {
		before, after := at(c.answered, c.failed)
		percent, n := share(after, before)
		require.InDelta(t, c.percent, percent, 1e-9, name)
		require.Equal(t, c.answered, n, name)
	}
}
