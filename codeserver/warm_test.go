package codeserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestForkedVersion deploys a second version, which is forked, a third one that asks not to be, and restarts the server,
// which has no process to fork from.
func TestForkedVersion(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	how := func(req *codeserverpb.DeployRequest) (stages []string, d *codeserverpb.Deployed) {
		stream, err := h.Client.Deploy(t.Context(), req)
		require.NoError(t, err)
		for d == nil {
			ev, err := stream.Recv()
			require.NoError(t, err)
			if name := ev.GetStage().GetName(); name == "start" || name == "fork" {
				stages = append(stages, name)
			}
			d = ev.GetDeployed()
		}
		h.s.zygotes.Wait()
		return stages, d
	}
	stages, _ := how(webRequest(h.spec(webApp("one"))))
	require.Equal(t, []string{"start"}, stages)
	stages, d := how(webRequest(h.spec(webApp("two"))))
	require.Equal(t, []string{"fork"}, stages)
	require.Equal(t, "two", h.get(d, "/"))
	stages, d = how(webRequest(h.spec(webApp("three"), func(s *codeserverpb.VersionSpec) {
		s.Env = map[string]string{warmVariable: "0"}
	})))
	require.Equal(t, []string{"start"}, stages)
	require.Equal(t, "three", h.get(d, "/"))
	h.restart()
	await(t, d.GetLocation().GetAddress(), "three")
	stages, d = how(webRequest(h.spec(webApp("four"))))
	require.Equal(t, []string{"fork"}, stages, "what versions import is remembered")
	require.Equal(t, "four", h.get(d, "/"))
}

// TestWarmFromAnotherHost deploys the first version of its dependencies to a host that shares a cache with another one: it
// is forked. A cache that takes no ActionResults, or has none, changes nothing else.
func TestWarmFromAnotherHost(t *testing.T) {
	t.Parallel()
	shared := memory.New()
	open := func(results cache.ActionCache, err error) func(*Options) {
		return func(o *Options) {
			o.OpenResults = func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
				return shared, results, io.NopCloser(nil), err
			}
		}
	}
	deployTo := func(results cache.ActionCache, err error) (forked bool) {
		h := newHost(t, open(results, err))
		d := h.deploy(h.spec(webApp("one")))
		require.Equal(t, "one", h.get(d, "/"))
		h.s.zygotes.Wait()
		return forkedNow(t, d)
	}
	require.False(t, deployTo(nil, errors.New("the cache is away")))
	require.False(t, deployTo(readOnly{shared}, nil))
	require.False(t, deployTo(shared, nil), "the first one")
	require.True(t, deployTo(shared, nil))
	require.True(t, deployTo(readOnly{shared}, nil))
}

// forkedNow reports whether the version that a location serves was forked.
func forkedNow(t *testing.T, d *codeserverpb.Deployed) bool {
	for _, v := range d.GetLocation().GetVersions() {
		if v.GetName() == d.GetLocation().GetCurrent() {
			return v.GetForked()
		}
	}
	require.Fail(t, "it is not among its versions")
	return false
}

// readOnly refuses ActionResults.
type readOnly struct{ cache.ActionCache }

func (readOnly) UpdateActionResult(context.Context, digest.Digest, *repb.ActionResult) error {
	return errors.New("you may not write here")
}

// TestCulprit deploys a version that does not come up if it finds a certain module imported: it is started by itself, the
// module is found in the background, by starting the version a few times more, and the next version is forked.
func TestCulprit(t *testing.T) {
	t.Parallel()
	var log lines
	h := newHost(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	breaks := func(word string) map[string]string {
		files := webApp(word)
		files["app/__main__.py"] = "import sys\nif 'wave' in sys.modules: sys.exit(3)\nimport wave, decimal\n" + webMain
		return files
	}
	forked := func(word string) bool {
		d := h.deploy(h.spec(breaks(word)))
		require.Equal(t, word, h.get(d, "/"))
		h.s.zygotes.Wait()
		return forkedNow(t, d)
	}
	require.False(t, forked("one"))
	require.False(t, forked("two"), "and serves")
	require.Contains(t, log.String(), `"left out"=[wave]`)
	shown := func() *codeserverpb.Version { return h.s.messages("web")[0].GetVersions()[0] }
	require.Contains(t, shown().GetLeftOut(), "wave")
	require.Empty(t, shown().GetUnforkable())
	require.True(t, forked("three"))
}

// lines is a log that several write to.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestLimitIsNoCulprit deploys a version that meets its own limit when it is forked, and does not otherwise: nothing is
// searched for, and the next one is forked.
func TestLimitIsNoCulprit(t *testing.T) {
	t.Parallel()
	var log lines
	h := newHost(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	deploy := func(word, main string) *codeserverpb.Deployed {
		files := webApp(word)
		files["app/__main__.py"] = "import sys, threading\nforked = 'wave' in sys.modules\nimport wave\n" + main + webMain
		d := h.deploy(h.spec(files, func(s *codeserverpb.VersionSpec) { s.Limits = &codeserverpb.Limits{Pids: 10} }))
		require.Equal(t, word, h.get(d, "/"))
		h.s.zygotes.Wait()
		return d
	}
	if said := fmt.Sprint(current(deploy("one", "").GetLocation()).GetIsolation()); strings.Contains(said, "not limited") {
		t.Skip("needs cgroups to make groups in: ", said)
	}
	const greedy = "for _ in range(20 * forked): threading.Thread(target=threading.Event().wait).start()\n"
	require.False(t, forkedNow(t, deploy("two", "if forked:\n  import os\n  sys.excepthook = lambda *a: os._exit(3)\n"+greedy)))
	require.NotContains(t, log.String(), "looking for the module")
	require.True(t, forkedNow(t, deploy("three", "")))
	require.False(t, forkedNow(t, deploy("four", "if forked: sys.exit(3)\n")))
	require.Contains(t, log.String(), "looking for the module", "without a limit in the way it is searched")
}

// TestKeeperIsNotCounted deploys versions that need all processes and threads that they may have. Also one comes up that a
// program with threads of its own put into its cgroup, and one that was forked, whose parent is there, too. More they may not.
func TestKeeperIsNotCounted(t *testing.T) {
	t.Parallel()
	h := newHost(t, withUsers(t))
	deploy := func(word string) *codeserverpb.Deployed {
		files := webApp(word)
		files["app/__main__.py"] = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n" + webMain
		d := h.deploy(h.spec(files, func(s *codeserverpb.VersionSpec) { s.Limits = &codeserverpb.Limits{Pids: 2} }))
		h.s.zygotes.Wait()
		return d
	}
	limit := func(want string) {
		eventually(t, func() bool { return strings.TrimSpace(readOneOf(t, h.groupOf("web"), "pids.max")) == want }, want)
	}
	deploy("one")
	limit("2")
	require.True(t, forkedNow(t, deploy("two")))
	limit("3")
}
