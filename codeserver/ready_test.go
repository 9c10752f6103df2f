package codeserver

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/codeserver/proc"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// TestReadiness tries each probe on a version that answers, and one that never does.
func TestReadiness(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for i, r := range []*codeserverpb.Readiness{
		{Probe: &codeserverpb.Readiness_HttpPath{HttpPath: "/cwd"}},
		{Probe: &codeserverpb.Readiness_Tcp{Tcp: true}},
	} {
		d := h.deploy(h.spec(webApp("one"), func(s *codeserverpb.VersionSpec) { s.Entry.Readiness = r }))
		require.Equal(t, "one", h.get(d, "/"), i)
	}
	for _, r := range []*codeserverpb.Readiness{
		{Probe: &codeserverpb.Readiness_HttpPath{HttpPath: "/missing"}},
		{Probe: &codeserverpb.Readiness_GrpcService{GrpcService: "x"}},
	} {
		msg := h.refused(codes.FailedPrecondition, &codeserverpb.DeployRequest{
			Location: "web", ReadyTimeout: durationpb.New(time.Second),
			Spec: h.spec(webApp("two"), func(s *codeserverpb.VersionSpec) { s.Entry.Readiness = r }),
		})
		require.Contains(t, msg, "not ready after 1s")
		require.Contains(t, msg, "serving two", "what it wrote")
	}
	require.Equal(t, "one", h.get(h.deploy(h.spec(webApp("one"), func(s *codeserverpb.VersionSpec) {
		s.Entry.Readiness = &codeserverpb.Readiness{Probe: &codeserverpb.Readiness_Tcp{Tcp: true}}
	})), "/"))
}

// TestTraceback has a version end at its start: the error says why, the old one serves, and a first deploy that fails
// leaves no location.
func TestTraceback(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	bad := webApp("bad")
	bad["app/word.py"] = "raise RuntimeError('no good')\n"
	msg := h.refused(codes.FailedPrecondition, &codeserverpb.DeployRequest{Location: "web", Spec: h.spec(bad)})
	require.Contains(t, msg, "RuntimeError: no good")
	first, _, _ := strings.Cut(msg, "\n")
	require.Contains(t, first, "ended with status 1; it wrote last: RuntimeError: no good")
	require.Equal(t, 1, strings.Count(msg, "Traceback ("))
	list, err := h.List(t.Context(), &codeserverpb.ListRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetLocations(), "a location that never served is not there")

	d := h.deploy(h.spec(webApp("one")))
	h.refused(codes.FailedPrecondition, &codeserverpb.DeployRequest{Location: "web", Spec: h.spec(bad), Listen: "127.0.0.1:0"})
	require.Equal(t, "one", h.get(d, "/"))
	eventually(t, func() bool {
		logs, _ := os.ReadDir(filepath.Join(h.opts.State, "logs"))
		trees, _ := os.ReadDir(filepath.Join(h.opts.State, "store/trees"))
		return len(logs) == 2 && len(trees) == 1
	}, "what a failed deploy brought is deleted, but for its log")
}

// TestCancel ends a deploy that waits for a version which never becomes ready.
func TestCancel(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	d := h.deploy(h.spec(webApp("one")))
	slow := webApp("slow")
	slow["app/word.py"] = "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n"
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := h.Deploy(ctx, &codeserverpb.DeployRequest{Location: "web", Spec: h.spec(slow)})
	require.NoError(t, err)
	for name := ""; name != "start" && name != "fork"; {
		ev, err := stream.Recv()
		require.NoError(t, err)
		name = ev.GetStage().GetName()
	}
	msg := h.refused(codes.Aborted, &codeserverpb.DeployRequest{Location: "web", Spec: h.spec(webApp("two"))})
	require.Contains(t, msg, "another deploy of web")
	cancel()
	eventually(t, func() bool {
		_, err := h.try(&codeserverpb.DeployRequest{Location: "web", Spec: h.spec(webApp("two"))})
		require.Contains(t, []codes.Code{codes.OK, codes.Aborted}, status.Code(err))
		return err == nil
	}, "the next deploy can begin")
	require.Equal(t, "two", h.get(d, "/"))
	eventually(t, func() bool { return len(processesOf(h.opts.State)) == 1 }, "one process is left")
}

// TestStranger has somebody else answer on the port that a version was meant to listen on.
func TestStranger(t *testing.T) {
	t.Parallel()
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer stranger.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	port := stranger.Addr().(*net.TCPAddr).Port
	w, err := worker.Start(worker.Spec{
		Program: "/bin/sleep", Args: []string{"60"}, Dir: t.TempDir(), Log: func([]byte) {}, Grace: time.Second,
	})
	require.NoError(t, err)
	defer w.Stop(context.Background())
	err = waitReady(ctx, &codeserverpb.Entry{Preset: presetASGI}, port, w)
	require.ErrorIs(t, err, worker.ErrStranger)
	require.NoError(t, waitReady(t.Context(), &codeserverpb.Entry{Preset: presetCommand}, port, w))
}

// TestAskOnly believes an answer only when nobody else can have given it: one who listened during the question, and not before or
// after, may have.
func TestAskOnly(t *testing.T) {
	own, other := []proc.Listener{{Inode: 1}}, []proc.Listener{{Inode: 2}}
	for name, c := range map[string]struct {
		before, after       []proc.Listener
		errBefore, errAfter error
		answer              error
		want                error
		asked               bool
	}{
		"its own":               {before: own, after: own, asked: true},
		"not known":             {asked: true},
		"nobody listens":        {errBefore: worker.ErrNobody, want: worker.ErrNobody},
		"a stranger listens":    {errBefore: worker.ErrStranger, want: worker.ErrStranger},
		"a stranger came":       {before: own, errAfter: worker.ErrStranger, want: worker.ErrStranger, asked: true},
		"it has gone":           {before: own, errAfter: worker.ErrNobody, want: worker.ErrNobody, asked: true},
		"it listens again":      {before: own, after: other, want: worker.ErrNobody, asked: true},
		"it is not able to yet": {before: own, after: own, answer: errUnwell, want: errUnwell, asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			asked, calls := false, 0
			err := askOnly(func(context.Context) error {
				asked = true
				return c.answer
			}, func() ([]proc.Listener, error) {
				if calls++; calls == 1 {
					return c.before, c.errBefore
				}
				return c.after, c.errAfter
			})(t.Context())
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.asked, asked)
		})
	}
}
