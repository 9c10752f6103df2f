package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/observe"
)

func TestServeAndRestart(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "--disk", dir)
	c := p.dial("")
	d, err := cache.PutBlob(t.Context(), c, []byte("hello"))
	require.NoError(t, err)
	action := digest.FromBytes([]byte("action"))
	result := &repb.ActionResult{StdoutDigest: d.Proto()}
	require.NoError(t, c.UpdateActionResult(t.Context(), action, result))
	code, body := p.ask(http.MethodGet, "/cas/"+d.Hash(), "", nil)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "hello", body)
	code, body = p.ask(http.MethodGet, "/healthz", "", nil)
	require.Equal(t, http.StatusOK, code, body)
	code, body = p.ask(http.MethodGet, "/metrics", "", nil)
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "pexcache_action_result_updates_total{instance=\"\"} 1\n")
	code, body = p.ask(http.MethodGet, "/", "", nil)
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "<title>pexcache</title>")

	out, exit := tool(t, "stats", "--server", "http://"+p.http, "--output", "json")
	require.Zero(t, exit)
	var s observe.Status
	require.NoError(t, json.Unmarshal([]byte(out), &s))
	require.Equal(t, "disk", s.Tiers[0].Name)
	require.EqualValues(t, 2, s.Tiers[0].Entries)
	out, exit = tool(t, "stats", "--server", "http://"+p.http)
	require.Zero(t, exit)
	require.Contains(t, out, "instance (default): 0 lookups hit, 0 lookups missed, 1 result stored; 5 B read, 5 B written")
	_, exit = tool(t, "verify", "--disk", dir)
	require.Equal(t, exitUnavailable, exit, "the server has it open")
	require.NoError(t, p.stop(syscall.SIGTERM), "an end in good order is no failure")

	out, exit = tool(t, "verify", "--disk", dir)
	require.Zero(t, exit)
	require.Contains(t, out, "2 entries read")
	p = start(t, "--disk", dir)
	got, err := p.dial("").GetActionResult(t.Context(), action)
	require.NoError(t, err)
	require.Equal(t, d.Hash(), got.GetStdoutDigest().GetHash())
	require.NoError(t, p.stop(syscall.SIGINT))
}

// TestKilled: what was acknowledged is there after SIGKILL.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "--disk", dir)
	d, err := cache.PutBlob(t.Context(), p.dial(""), bytes.Repeat([]byte("x"), 1<<20))
	require.NoError(t, err)
	require.Error(t, p.stop(syscall.SIGKILL))
	p = start(t, "--disk", dir)
	missing, err := p.dial("").FindMissing(t.Context(), []digest.Digest{d})
	require.NoError(t, err)
	require.Empty(t, missing)
}

func dialRaw(t *testing.T, address string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestDrain ends a server in the middle of an upload: probes are told at once, and the upload is finished.
func TestDrain(t *testing.T) {
	notices := notifySocket(t)
	p := start(t, "--disk", t.TempDir())
	require.Contains(t, <-notices, "READY=1")
	conn := dialRaw(t, p.grpc)
	probe, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	state, err := probe.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, state.GetStatus())

	data := bytes.Repeat([]byte("slow "), 100_000)
	d := digest.FromBytes(data)
	upload, err := bspb.NewByteStreamClient(conn).Write(t.Context())
	require.NoError(t, err)
	name := "uploads/11111111-1111-1111-1111-111111111111/blobs/" + d.String()
	require.NoError(t, upload.Send(&bspb.WriteRequest{ResourceName: name, Data: data[:1000]}))
	// The server has the upload when it shows it as under way; the watch is the other call.
	require.Eventually(t, func() bool {
		_, body := p.ask(http.MethodGet, "/status.json", "", nil)
		return strings.Contains(body, `"active":2`)
	}, patience, 10*time.Millisecond)

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	state, err = probe.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, state.GetStatus(), "probes are told before anything else ends")
	require.Contains(t, <-notices, "STOPPING=1")
	require.NoError(t, upload.Send(&bspb.WriteRequest{WriteOffset: 1000, Data: data[1000:], FinishWrite: true}))
	resp, err := upload.CloseAndRecv()
	require.NoError(t, err, "what was under way ends well")
	require.Equal(t, d.Size(), resp.GetCommittedSize())
	require.NoError(t, conn.Close())
	<-p.done
	require.NoError(t, p.err, p.said())
}

// TestDrainHasADeadline: a client that never ends its upload does not keep the server.
func TestDrainHasADeadline(t *testing.T) {
	p := start(t, "--disk", t.TempDir(), "--drain", "1s")
	upload, err := bspb.NewByteStreamClient(dialRaw(t, p.grpc)).Write(t.Context())
	require.NoError(t, err)
	d := digest.FromBytes(make([]byte, 1000))
	name := "uploads/11111111-1111-1111-1111-111111111111/blobs/" + d.String()
	require.NoError(t, upload.Send(&bspb.WriteRequest{ResourceName: name, Data: make([]byte, 10)}))
	require.Eventually(t, func() bool {
		_, body := p.ask(http.MethodGet, "/status.json", "", nil)
		return strings.Contains(body, `"active":1`)
	}, patience, 10*time.Millisecond)
	require.NoError(t, p.stop(syscall.SIGTERM))
	require.Contains(t, p.said(), "calls were cut off")
}

// notifySocket is what systemd would listen on.
func notifySocket(t *testing.T) <-chan string {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Setenv("NOTIFY_SOCKET", path)
	said := make(chan string, 10)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	t.Cleanup(func() { conn.Close() })
	return said
}

func TestUnixSocket(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	p := start(t, "--disk", filepath.Join(dir, "disk"), "--listen", "unix:"+socket)
	conn := dialRaw(t, "unix://"+socket)
	_, err := repb.NewCapabilitiesClient(conn).GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{})
	require.NoError(t, err)
	require.NoError(t, p.stop(syscall.SIGTERM))
	require.NoFileExists(t, socket)
}

const overlays = `
[[instance]]
name = "main"

[[instance]]
name = "pr-*"
parent = "main"
quota = "1MiB"
`

func TestOverlaysAndQuotas(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "--disk", filepath.Join(dir, "disk"), "--config", write(t, dir, "config.toml", overlays))
	main, pr := p.dial("main"), p.dial("pr-1")
	theirs, err := cache.PutBlob(t.Context(), main, []byte("main's"))
	require.NoError(t, err)
	ours, err := cache.PutBlob(t.Context(), pr, []byte("ours"))
	require.NoError(t, err)
	missing, err := pr.FindMissing(t.Context(), []digest.Digest{theirs, ours})
	require.NoError(t, err)
	require.Empty(t, missing)
	missing, err = main.FindMissing(t.Context(), []digest.Digest{theirs, ours})
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{ours}, missing)
	code, body := p.ask(http.MethodGet, "/pr-1/cas/"+theirs.Hash(), "", nil)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "main's", body)

	_, err = cache.PutBlob(t.Context(), pr, make([]byte, 2<<20))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, `instance "pr-1" holds`)
	_, err = p.dial("other").FindMissing(t.Context(), []digest.Digest{ours})
	require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
	_, body = p.ask(http.MethodGet, "/metrics", "", nil)
	require.Contains(t, body, `pexcache_blob_bytes_total{direction="written",instance="pr-*"} 4`+"\n")
	require.NotContains(t, body, "pr-1")
}

func TestHTTPWithoutLength(t *testing.T) {
	p := start(t, "--disk", t.TempDir())
	data := strings.Repeat("chunked ", 10_000)
	code, body := p.ask(http.MethodPut, "/cas/"+digest.FromBytes([]byte(data)).Hash(), "", io.MultiReader(strings.NewReader(data)))
	require.Equal(t, http.StatusCreated, code, body)
}

// TestOneOwner: two servers on one disk would each undo what the other does.
func TestOneOwner(t *testing.T) {
	dir := t.TempDir()
	start(t, "--disk", dir)
	out, exit := tool(t, "serve", "--disk", dir, "--listen", "127.0.0.1:0", "--http-listen", "none")
	require.Equal(t, exitUnavailable, exit)
	require.Contains(t, out, "another process has it open")
}
