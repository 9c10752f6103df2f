package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/digest"
)

// TestWriteBackIsKilled: what the journal acknowledged is there after every SIGKILL, sent while writes are under way.
func TestWriteBackIsKilled(t *testing.T) {
	const kills, atOnce, enough = 20, 4, 40
	args := with(bucket(t), "--disk", t.TempDir(), "--write-back", "--write-back-size", "100MiB")
	var mu sync.Mutex
	var acknowledged []digest.Digest
	for kill := range kills {
		p := start(t, args...)
		ctx, cancel := context.WithCancel(t.Context())
		c, busy := p.dial(""), make(chan struct{})
		before := len(acknowledged)
		var writers sync.WaitGroup
		for w := range atOnce {
			writers.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					d, err := cache.PutBlob(ctx, c, fmt.Appendf(nil, "blob %d of writer %d before kill %d", i, w, kill))
					if err != nil {
						return
					}
					mu.Lock()
					if acknowledged = append(acknowledged, d); len(acknowledged) == before+enough {
						close(busy)
					}
					mu.Unlock()
				}
			})
		}
		<-busy
		require.Error(t, p.stop(syscall.SIGKILL))
		cancel()
		writers.Wait()
	}
	t.Logf("%d blobs acknowledged, %d kills", len(acknowledged), kills)
	c := start(t, args...).dial("")
	missing, err := c.FindMissing(t.Context(), acknowledged)
	require.NoError(t, err)
	require.Empty(t, missing)
	for _, d := range acknowledged {
		_, err := cache.ReadBlob(t.Context(), c, d, d.Size())
		require.NoError(t, err)
	}
}

// flipPacks inverts a byte in the middle of each pack in the bucket, behind everybody's back.
func flipPacks(t *testing.T, endpoint string) {
	t.Helper()
	var list struct{ Contents []struct{ Key string } }
	_, body := ask(t, http.DefaultClient, http.MethodGet, endpoint+"/cache?list-type=2&prefix=team/pack/", "", nil)
	require.NoError(t, xml.Unmarshal([]byte(body), &list))
	require.NotEmpty(t, list.Contents)
	for _, o := range list.Contents {
		_, body := ask(t, http.DefaultClient, http.MethodGet, endpoint+"/cache/"+o.Key, "", nil)
		b := []byte(body)
		b[len(b)/2] ^= 0xff
		code, says := ask(t, http.DefaultClient, http.MethodPut, endpoint+"/cache/"+o.Key, "", bytes.NewReader(b))
		require.Equal(t, http.StatusOK, code, says)
	}
}

// TestPacksAreDamaged: bytes that changed in the bucket are never served. A node with a copy goes on, scrub says so, and what
// is uploaded again is whole.
func TestPacksAreDamaged(t *testing.T) {
	flags := bucket(t)
	first := start(t, with(flags, "--disk", filepath.Join(t.TempDir(), "1"))...)
	content := bytes.Repeat([]byte("content "), 1000)
	d, err := cache.PutBlob(t.Context(), first.dial(""), content)
	require.NoError(t, err)
	flipPacks(t, flags[3])
	got, err := cache.ReadBlob(t.Context(), first.dial(""), d, d.Size())
	require.NoError(t, err, "the disk has a copy")
	require.Equal(t, content, got)
	out, exit := tool(t, with(flags, "scrub")...)
	require.Equal(t, exitUnsound, exit, out)
	require.Contains(t, out, "1 bad record")
	second := start(t, flags...).dial("")
	missing, err := second.FindMissing(t.Context(), []digest.Digest{d})
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{d}, missing)
	_, err = cache.ReadBlob(t.Context(), second, d, d.Size())
	require.Error(t, err)
	_, err = cache.PutBlob(t.Context(), second, content)
	require.NoError(t, err)
	got, err = cache.ReadBlob(t.Context(), second, d, d.Size())
	require.NoError(t, err)
	require.Equal(t, content, got)
}

// TestNothingThere: a command that is pointed at the wrong place says so, and makes nothing there.
func TestNothingThere(t *testing.T) {
	flags := bucket(t)
	for _, args := range [][]string{
		{"stats"}, {"verify"}, {"scrub"}, {"gc"}, {"roots"}, {"unpin", "x"}, {"purge", "--since", "1h"}, {"pin", "x", "--blob", digest.FromBytes([]byte("x")).String()},
	} {
		out, exit := tool(t, with(flags, args...)...)
		require.Equal(t, exitNotFound, exit, out)
		require.Contains(t, out, "no cache was ever kept in s3://cache/team")
	}
	_, body := ask(t, http.DefaultClient, http.MethodGet, flags[3]+"/cache?list-type=2", "", nil)
	require.NotContains(t, body, "<Key>")
	start(t, flags...)
	out, exit := tool(t, "gc", "--s3", "s3://cache", "--s3-endpoint", flags[3], "--s3-path-style")
	require.Equal(t, exitNotFound, exit, "the prefix was forgotten: %s", out)
	out, exit = tool(t, "gc", "--s3", "s3://absent", "--s3-endpoint", flags[3], "--s3-path-style")
	require.Equal(t, exitNotFound, exit, out)
	_, exit = tool(t, "verify", "--disk", t.TempDir())
	require.Equal(t, exitNotFound, exit)
}

// TestToolsReadTheConfiguration: with the file of serve a command needs no other flag.
func TestToolsReadTheConfiguration(t *testing.T) {
	flags, dir := bucket(t), t.TempDir()
	tier := filepath.Join(dir, "disk")
	file := write(t, dir, "pexcache.toml", fmt.Sprintf("disk = %q\ns3 = \"s3://cache/team\"\ns3-endpoint = %q\ns3-path-style = true\n", tier, flags[3]))
	p := start(t, "--config", file)
	_, err := cache.PutBlob(t.Context(), p.dial(""), []byte("x"))
	require.NoError(t, err)
	for _, args := range [][]string{{"stats"}, {"verify"}, {"scrub"}, {"gc"}, {"roots"}, {"purge", "--since", "1h"}, {"rebuild", "--yes"}} {
		out, exit := tool(t, append(args, "--config", file)...)
		require.Zero(t, exit, "%s: %s", args, out)
	}
	require.NoError(t, p.stop(syscall.SIGTERM))
	out, exit := tool(t, "verify", "--config", file, "--disk", tier)
	require.Zero(t, exit, out)
	require.Contains(t, out, "read", "a flag counts before the file")
	out, exit = tool(t, "gc", "--config", write(t, dir, "disk.toml", `disk = "/nonexistent"`))
	require.Equal(t, exitConfig, exit, out)
	require.Contains(t, out, "it names no s3 bucket")
}

// TestClientsAreTold: what package remote says of the server's own refusals names the variable or the instance.
func TestClientsAreTold(t *testing.T) {
	token, line, err := auth.NewToken("reader")
	require.NoError(t, err)
	dir := t.TempDir()
	p := start(t, "--disk", filepath.Join(dir, "disk"), "--tokens", write(t, dir, "tokens", line+"\n"),
		"--config", write(t, dir, "c.toml", "[[instance]]\nname = \"main\"\nread = [\"token:reader\"]\n"))
	put := func(instance string, opts ...grpc.DialOption) string {
		_, err := cache.PutBlob(t.Context(), p.dial(instance, opts...), []byte("x"))
		require.Error(t, err)
		return err.Error()
	}
	at := "cache grpc://" + p.grpc
	require.Equal(t, at+"/main: the server asks who you are: set PEXPRESS_CACHE_TOKEN, or PEXPRESS_CACHE_CERT and PEXPRESS_CACHE_KEY", put("main"))
	require.Contains(t, put("main", grpc.WithPerRPCCredentials(bearer("wrong"))), at+"/main: credentials refused: no one knows the token")
	reader := grpc.WithPerRPCCredentials(bearer(token))
	require.Contains(t, put("main", reader), at+`/main: token:reader has no write-cas right to instance "main"`)
	require.Contains(t, put("other", reader), at+`/other: the server has no instance "other"`)
}
