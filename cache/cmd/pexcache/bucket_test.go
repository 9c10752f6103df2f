package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// bucket starts an S3 service in this process, and returns the flags for a bucket of it.
func bucket(t *testing.T) []string {
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("cache"))
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(srv.Close)
	return []string{"--s3", "s3://cache/team", "--s3-endpoint", srv.URL, "--s3-path-style"}
}

func with(flags []string, more ...string) []string {
	return append(append([]string{}, more...), flags...)
}

// TestNodes: what one node acknowledged another has, whether it has a disk or not, over gRPC and HTTP, and after the disk
// of both is gone.
func TestNodes(t *testing.T) {
	flags, dir := bucket(t), t.TempDir()
	first := start(t, with(flags, "--disk", filepath.Join(dir, "1"))...)
	second := start(t, with(flags, "--disk", filepath.Join(dir, "2"))...)
	third := start(t, flags...)
	c := first.dial("")
	small, err := cache.PutBlob(t.Context(), c, []byte("small"))
	require.NoError(t, err)
	large, err := cache.PutBlob(t.Context(), c, bytes.Repeat([]byte("large "), 1<<20))
	require.NoError(t, err)
	action, err := cache.PutMessage(t.Context(), c, &repb.Action{CommandDigest: small.Proto()})
	require.NoError(t, err)
	result := &repb.ActionResult{StdoutDigest: small.Proto(), OutputFiles: []*repb.OutputFile{{Path: "out", Digest: large.Proto()}}}
	require.NoError(t, c.UpdateActionResult(t.Context(), action, result))
	check := func(p *process) {
		c := p.dial("")
		got, err := c.GetActionResult(t.Context(), action)
		require.NoError(t, err)
		require.Equal(t, large.Hash(), got.GetOutputFiles()[0].GetDigest().GetHash())
		b, err := cache.ReadBlob(t.Context(), c, large, large.Size())
		require.NoError(t, err)
		require.Len(t, b, 6<<20)
		code, body := p.ask(http.MethodGet, "/cas/"+small.Hash(), "", nil)
		require.Equal(t, http.StatusOK, code, body)
		require.Equal(t, "small", body)
		code, _ = p.ask(http.MethodGet, "/ac/"+action.Hash(), "", nil)
		require.Equal(t, http.StatusOK, code, "what came by gRPC is found by HTTP")
	}
	for _, p := range []*process{second, third, first} {
		check(p)
	}
	require.NoError(t, second.stop(syscall.SIGTERM))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "2")))
	check(start(t, with(flags, "--disk", filepath.Join(dir, "2"))...))

	_, body := first.ask(http.MethodGet, "/metrics", "", nil)
	require.Regexp(t, `pexcache_s3_requests_total\{operation="PUT"\} [1-9]`, body)
	require.Regexp(t, `pexcache_s3_attempt_seconds_count\{code="200",verb="PUT"\} [1-9]`, body)
	_, body = first.ask(http.MethodGet, "/status.json", "", nil)
	require.Contains(t, body, `"name":"s3"`)
}

// TestWriteBack: what the journal acknowledged is there after SIGKILL, and comes to the bucket.
func TestWriteBack(t *testing.T) {
	flags, dir := bucket(t), t.TempDir()
	args := with(flags, "--disk", dir, "--write-back", "--write-back-size", "100MiB")
	p := start(t, args...)
	d, err := cache.PutBlob(t.Context(), p.dial(""), []byte("in the journal"))
	require.NoError(t, err)
	require.Error(t, p.stop(syscall.SIGKILL))
	p = start(t, args...)
	missing, err := p.dial("").FindMissing(t.Context(), []digest.Digest{d})
	require.NoError(t, err)
	require.Empty(t, missing)
	other := start(t, flags...).dial("")
	require.Eventually(t, func() bool {
		missing, err := other.FindMissing(t.Context(), []digest.Digest{d})
		return err == nil && len(missing) == 0
	}, patience, 50*time.Millisecond)
}

// TestLookingAfterABucket runs the tools beside a server.
func TestLookingAfterABucket(t *testing.T) {
	flags := bucket(t)
	p := start(t, flags...)
	c := p.dial("")
	file, err := cache.PutBlob(t.Context(), c, []byte("deployed"))
	require.NoError(t, err)
	var b merkle.Builder
	require.NoError(t, b.File("dir/file", file))
	tree, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tree.Put(t.Context(), c))
	action, err := cache.PutBlob(t.Context(), c, []byte("action"))
	require.NoError(t, err)
	require.NoError(t, c.UpdateActionResult(t.Context(), action, &repb.ActionResult{StdoutDigest: file.Proto()}))

	ok := func(args ...string) string {
		t.Helper()
		out, exit := tool(t, with(flags, args...)...)
		require.Zero(t, exit, out)
		return out
	}
	event := func(args ...string) map[string]any {
		t.Helper()
		var v map[string]any
		require.NoError(t, json.Unmarshal([]byte(ok(append(args, "--output", "json")...)), &v))
		for key := range v {
			require.Regexp(t, `^[a-z0-9_]+$`, key)
		}
		return v
	}
	require.Contains(t, ok("verify"), "0 objects missing")
	require.Contains(t, ok("scrub"), "0 bad records")
	require.NotZero(t, event("stats")["bytes"])

	require.Contains(t, ok("pin", "production", "--tree", tree.Root().String()), "production pinned: 3 blobs")
	require.Contains(t, ok("roots"), `production  3 blobs in instance ""`)
	out, exit := tool(t, with(flags, "pin", "other", "--blob", digest.FromBytes([]byte("absent")).String())...)
	require.Equal(t, exitNotFound, exit)
	require.Contains(t, out, "missing")
	_, exit = tool(t, with(flags, "pin", "other", "--blob", "nonsense")...)
	require.Equal(t, exitUsage, exit)

	require.Contains(t, ok("gc", "--max-size", "1B", "--dry-run"), "would be condemned")
	require.NotZero(t, event("gc", "--max-size", "1B")["condemned_records"])
	// What is pinned outlives a gc that leaves nothing else. The node learns of it when its view is renewed; a new one at once.
	fresh := start(t, flags...).dial("")
	got, err := merkle.Load(t.Context(), fresh, tree.Root())
	require.NoError(t, err)
	require.Equal(t, tree.Root(), got.Root())
	missing, err := fresh.FindMissing(t.Context(), []digest.Digest{file, action})
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{action}, missing)
	require.Contains(t, ok("unpin", "production"), "not pinned any more")
	require.Empty(t, ok("roots"))
}

func TestPurge(t *testing.T) {
	for _, kind := range []string{"s3", "disk"} {
		t.Run(kind, func(t *testing.T) {
			flags := []string{"--disk", t.TempDir()}
			if kind == "s3" {
				flags = bucket(t)
			}
			p := start(t, flags...)
			c := p.dial("")
			actions := []digest.Digest{digest.FromBytes([]byte("1")), digest.FromBytes([]byte("2"))}
			for _, a := range actions {
				require.NoError(t, c.UpdateActionResult(t.Context(), a, &repb.ActionResult{StdoutRaw: []byte(a.Hash())}))
			}
			require.NoError(t, p.stop(syscall.SIGTERM))
			purge := func(args ...string) string {
				out, exit := tool(t, with(flags, append([]string{"purge"}, args...)...)...)
				require.Zero(t, exit, out)
				return strings.TrimSpace(out)
			}
			require.Equal(t, "0 ActionResults removed", purge("--principal", "token:nobody"))
			out, exit := tool(t, with(flags, "purge", "--since", "2h", "--instance", "other")...)
			require.Equal(t, exitNotFound, exit)
			require.Contains(t, out, `instance "other" holds nothing; these hold something: ""`)
			require.Equal(t, "2 ActionResults would be removed", purge("--principal", "anonymous", "--since", "2h", "--dry-run"))
			require.Equal(t, "2 ActionResults removed", purge("--principal", "anonymous", "--instance", ""))
			c = start(t, flags...).dial("")
			for _, a := range actions {
				_, err := c.GetActionResult(t.Context(), a)
				require.ErrorIs(t, err, cache.ErrNotFound)
			}
		})
	}
}

func TestBucketThatIsAway(t *testing.T) {
	out, exit := tool(t, "serve", "--s3", "s3://cache", "--s3-endpoint", "http://127.0.0.1:1", "--listen", "127.0.0.1:0")
	require.Equal(t, exitUnavailable, exit, out)
}

// TestQuotaOfABucket: what another node wrote, and what was written before a restart, counts.
func TestQuotaOfABucket(t *testing.T) {
	flags := bucket(t)
	first := start(t, with(flags, "--config", write(t, t.TempDir(), "config.toml", overlays))...)
	pr := first.dial("pr-1")
	_, err := cache.PutBlob(t.Context(), pr, make([]byte, 700<<10))
	require.NoError(t, err)
	_, err = cache.PutBlob(t.Context(), first.dial("pr-2"), make([]byte, 700<<10))
	require.NoError(t, err, "each has its own quota")
	second := start(t, with(flags, "--config", write(t, t.TempDir(), "config.toml", overlays))...)
	for _, p := range []*process{first, second} {
		_, err := cache.PutBlob(t.Context(), p.dial("pr-1"), bytes.Repeat([]byte("x"), 400<<10))
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
		_, err = cache.PutBlob(t.Context(), p.dial("main"), bytes.Repeat([]byte("x"), 400<<10))
		require.NoError(t, err)
	}
}
