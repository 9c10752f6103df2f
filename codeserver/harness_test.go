package codeserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
)

func TestMain(m *testing.M) {
	worker.Main()
	if role := os.Getenv(chaosEnv); role != "" {
		beChaos(role)
	}
	if dir := os.Getenv(serveEnv); dir != "" {
		serveForTest(dir)
	}
	os.Exit(m.Run())
}

// host is a codeserver in this process and a client of its API.
type host struct {
	t    *testing.T
	opts Options
	cas  cache.CAS
	s    *Server
	g    *grpc.Server
	*client.Client
}

func newHost(t *testing.T, change ...func(*Options)) *host {
	h := &host{t: t, cas: memory.New()}
	h.opts = Options{
		State: t.TempDir(), StopGrace: 2 * time.Second, DrainTimeout: time.Minute,
		Log:  slog.New(slog.NewTextHandler(logWriter{t}, nil)),
		Open: func(context.Context) (cache.CAS, io.Closer, error) { return h.cas, io.NopCloser(nil), nil },
	}
	for _, c := range change {
		c(&h.opts)
	}
	h.open()
	t.Cleanup(h.close)
	return h
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (h *host) open() {
	s, err := Open(h.opts)
	require.NoError(h.t, err)
	h.s, h.g = s, grpc.NewServer(s.CallOptions()...)
	s.Register(h.g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(h.t, err)
	go func() { _ = h.g.Serve(l) }()
	h.Client, err = client.Dial(h.t.Context(), l.Addr().String())
	require.NoError(h.t, err)
}

func (h *host) close() {
	if h.s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = h.Client.Close()
	h.g.Stop()
	require.NoError(h.t, h.s.Close(ctx))
	h.s = nil
	require.Empty(h.t, processesOf(h.opts.State), "no process outlives the server")
}

func (h *host) restart() {
	h.close()
	h.open()
}

// spec returns the spec of a module app with these sources and no dependencies.
func (h *host) spec(files map[string]string, change ...func(*codeserverpb.VersionSpec)) *codeserverpb.VersionSpec {
	return makeSpec(h.t, h.cas, files, change...)
}

func makeSpec(t *testing.T, cas cache.CAS, files map[string]string, change ...func(*codeserverpb.VersionSpec)) *codeserverpb.VersionSpec {
	s := &codeserverpb.VersionSpec{
		DepsRoot: depsTree(t, cas, nil).Proto(), SourceRoot: sourceTree(t, cas, files).Proto(), Python: "3.11",
		Entry: &codeserverpb.Entry{Preset: "module", Args: []string{"app"}},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func (h *host) try(req *codeserverpb.DeployRequest) (*codeserverpb.Deployed, error) {
	return deployWith(h.t.Context(), h.Client, req)
}

func deployWith(ctx context.Context, c codeserverpb.CodeServerClient, req *codeserverpb.DeployRequest) (*codeserverpb.Deployed, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream that is not read to its end holds on until then
	stream, err := c.Deploy(ctx, req)
	if err != nil {
		return nil, err
	}
	return deployed(stream)
}

// deployed reads the events of a call until what it asked for serves.
func deployed(stream grpc.ServerStreamingClient[codeserverpb.DeployEvent]) (*codeserverpb.Deployed, error) {
	for {
		ev, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if d := ev.GetDeployed(); d != nil {
			return d, nil
		}
	}
}

// deploy deploys to the location "web" and returns it.
func (h *host) deploy(spec *codeserverpb.VersionSpec) *codeserverpb.Deployed {
	h.t.Helper()
	d, err := h.try(&codeserverpb.DeployRequest{Location: "web", Spec: spec, ReadyTimeout: durationpb.New(time.Minute)})
	require.NoError(h.t, err)
	return d
}

func (h *host) rollback(version string) (*codeserverpb.Deployed, error) {
	stream, err := h.Client.Rollback(h.t.Context(), &codeserverpb.RollbackRequest{Location: "web", Version: version})
	require.NoError(h.t, err)
	return deployed(stream)
}

// anew has another process of what the location "web" serves take over.
func (h *host) anew(change ...func(*codeserverpb.RestartRequest)) (*codeserverpb.Deployed, error) {
	req := &codeserverpb.RestartRequest{Location: "web"}
	for _, c := range change {
		c(req)
	}
	stream, err := h.Client.Restart(h.t.Context(), req)
	require.NoError(h.t, err)
	return deployed(stream)
}

// refused deploys what must be refused, and returns the message.
func (h *host) refused(code codes.Code, req *codeserverpb.DeployRequest) string {
	h.t.Helper()
	_, err := h.try(req)
	require.Error(h.t, err)
	require.Equal(h.t, code, status.Code(err), "%v", err)
	return status.Convert(err).Message()
}

func get(address, path string) (string, error) {
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

func (h *host) get(d *codeserverpb.Deployed, path string) string {
	h.t.Helper()
	body, err := get(d.GetLocation().GetAddress(), path)
	require.NoError(h.t, err)
	return body
}

// await waits until the address answers with the word.
func await(t *testing.T, address, word string) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, err := get(address, "/")
		return err == nil && got == word
	}, 30*time.Second, 10*time.Millisecond, "%s does not answer %q", address, word)
}

// processesOf lists the processes that mention a directory, in their arguments or environment.
func processesOf(dir string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		args, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(d, "environ"))
		mine := filepath.Base(d) == fmt.Sprint(os.Getpid()) || bytes.Contains(env, []byte(serveEnv))
		mine = mine || bytes.Contains(args, []byte(".py\x00serve\x00")) // a zygote
		if !mine && (bytes.Contains(args, []byte(dir)) || bytes.Contains(env, []byte(dir))) {
			found = append(found, filepath.Base(d)+" "+string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		}
	}
	return found
}

func eventually(t *testing.T, ok func() bool, why string) {
	t.Helper()
	require.Eventually(t, ok, 20*time.Second, 10*time.Millisecond, why)
}

func webRequest(spec *codeserverpb.VersionSpec) *codeserverpb.DeployRequest {
	return &codeserverpb.DeployRequest{Location: "web", Spec: spec}
}

// pythonIn runs Python in a directory and returns what it wrote.
func pythonIn(t *testing.T, dir string, args ...string) string {
	py, err := new(interpreters).find(t.Context(), "3.11")
	require.NoError(t, err)
	cmd := exec.Command(py.Path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// setFileLimit sets the size that files of a process may have. A write beyond is EFBIG, as SIGXFSZ is ignored by Go.
func setFileLimit(t *testing.T, pid int, size uint64) {
	limit := unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}
	require.NoError(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil))
}
