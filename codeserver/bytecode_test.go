package codeserver

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/codeserver/bytecode"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// fleetKey is one of hosts that share bytecode.
func fleetKey(t *testing.T) *bytecode.Key {
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("k", 40)), 0o600))
	key, err := bytecode.ReadKey(path)
	require.NoError(t, err)
	return key
}

// sharingHost is a host that shares bytecode through a store, and its log.
func sharingHost(t *testing.T, store *memory.Store, key *bytecode.Key) (*host, *lockedBuffer) {
	log := &lockedBuffer{}
	h := newHost(t, func(o *Options) {
		o.Open = func(context.Context) (cache.CAS, io.Closer, error) { return store, io.NopCloser(nil), nil }
		o.BytecodeKey = key
		o.OpenResults = func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
			return store, complete.New(store, store), io.NopCloser(nil), nil
		}
		o.Log = slog.New(slog.NewTextHandler(log, nil))
	})
	return h, log
}

// environmentStage deploys, and returns what its stage "environment" has fetched.
func (h *host) environmentStage(spec *codeserverpb.VersionSpec) (blobs int64, d *codeserverpb.Deployed) {
	stream, err := h.Client.Deploy(h.t.Context(), &codeserverpb.DeployRequest{Location: "web", Spec: spec})
	require.NoError(h.t, err)
	for {
		ev, err := stream.Recv()
		require.NoError(h.t, err)
		if st := ev.GetStage(); st.GetName() == "environment" {
			blobs = st.GetFetchedBlobs()
		}
		if d := ev.GetDeployed(); d != nil {
			return blobs, d
		}
	}
}

// TestBytecodeOfAFleet deploys the same on three hosts: the first makes the bytecode, the second has its key, the third has not.
func TestBytecodeOfAFleet(t *testing.T) {
	t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
	store := memory.New()
	w := wheel(t, "dep", member{name: "dep/__init__.py", content: "from dep.sub import WORD\n"}, member{name: "dep/sub.py", content: "WORD = 'of a wheel'\n"},
		member{name: "dep/bad.py", content: "print 'old'\n"})
	files := webApp("x")
	files["app/word.py"] = "import dep, dep.sub\nWORD = dep.WORD + ' ' + dep.sub.__cached__.rpartition('/')[2]\n"
	spec := makeSpec(t, store, files, func(s *codeserverpb.VersionSpec) {
		s.DepsRoot = depsTree(t, store, map[string][]byte{"dep-1.0-py3-none-any.whl": w}).Proto()
	})
	const answer = "of a wheel sub.cpython-311.pyc"
	key := fleetKey(t)

	first, log := sharingHost(t, store, key)
	blobs, d := first.environmentStage(spec)
	require.Zero(t, blobs)
	require.Equal(t, answer, first.get(d, "/"))
	eventually(t, func() bool { return strings.Contains(log.String(), "bytecode was made") }, "it is made behind the first start")
	require.Contains(t, log.String(), "wheels=1 modules=3 skipped=1")
	require.NotContains(t, log.String(), "WARN")

	second, log := sharingHost(t, store, key)
	blobs, d = second.environmentStage(spec)
	require.EqualValues(t, 2, blobs)
	require.Equal(t, answer, second.get(d, "/"))
	found, err := filepath.Glob(filepath.Join(second.opts.State, "python/wheels/*/site/dep/__pycache__/*"))
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.NotContains(t, log.String(), "bytecode was made")

	third, log := sharingHost(t, store, nil)
	blobs, d = third.environmentStage(spec)
	require.Zero(t, blobs)
	require.Equal(t, answer, third.get(d, "/"))
	eventually(t, func() bool { return strings.Contains(log.String(), "bytecode was made") }, "it makes its own")
}

// TestBytecodeIsMadeAfterARestart ends the server before the bytecode of what it serves is made.
func TestBytecodeIsMadeAfterARestart(t *testing.T) {
	log := &lockedBuffer{}
	h := newHost(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	h.s.fills <- struct{}{} // as if another's bytecode were being made
	w := wheel(t, "dep", member{name: "dep.py", content: "WORD = 'w'\n"})
	spec := h.spec(webApp("one"), func(s *codeserverpb.VersionSpec) {
		s.DepsRoot = depsTree(t, h.cas, map[string][]byte{"dep-1.0-py3-none-any.whl": w}).Proto()
	})
	_, err := h.try(&codeserverpb.DeployRequest{Location: "web", Spec: spec, ReadyTimeout: durationpb.New(time.Minute)})
	require.NoError(t, err)
	h.restart()
	eventually(t, func() bool { return strings.Contains(log.String(), "bytecode was made") }, "it is made when the version is started again")
	made, err := filepath.Glob(filepath.Join(h.opts.State, "python/wheels/*/site/__pycache__/dep.cpython-311.pyc"))
	require.NoError(t, err)
	require.Len(t, made, 1)
	require.Equal(t, 1, strings.Count(log.String(), "bytecode was made"))
}
