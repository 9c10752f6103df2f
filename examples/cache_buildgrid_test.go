package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// TestCacheBuildGrid has BuildGrid's command line move files and directories, and set and get an ActionResult.
func TestCacheBuildGrid(t *testing.T) {
	bgd := filepath.Join(clients(t), "buildgrid/bin/bgd")
	p := servePexcache(t)
	dir := t.TempDir()
	run := func(service, command string, args ...string) string {
		return client(t, dir, nil, bgd, append([]string{service, "--remote", "http://" + p.grpc, command}, args...)...)
	}
	in := map[string]string{"a": "hello\n", "sub/run.sh": "#!/bin/sh\n", "sub/big": noise(3, 6<<20)}
	writeTree(t, filepath.Join(dir, "in"), in)

	said := run("cas", "upload-dir", "in")
	root := regexp.MustCompile(`path=\[in\] with digest=\[([0-9a-f]{64}/\d+)\]`).FindStringSubmatch(said)
	require.Len(t, root, 2, said)
	run("cas", "download-dir", "--verify", root[1], "out")
	require.Equal(t, in, readTree(t, filepath.Join(dir, "out")))
	info, err := os.Stat(filepath.Join(dir, "out/sub/run.sh"))
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&0o100)

	result, err := proto.Marshal(&repb.ActionResult{StdoutRaw: []byte("hello")})
	require.NoError(t, err)
	writeTree(t, dir, map[string]string{"result": string(result)})
	require.Contains(t, run("cas", "upload-file", "result"), digestOf(string(result)))
	run("cas", "download-file", digestOf(string(result)), "result.out")
	got, err := os.ReadFile(filepath.Join(dir, "result.out"))
	require.NoError(t, err)
	require.Equal(t, result, got)

	action := digestOf("an action")
	require.Contains(t, run("actioncache", "get", action), "Miss")
	run("actioncache", "update", action, digestOf(string(result)))
	require.Contains(t, run("actioncache", "get", "--json", action), `"stdoutRaw": "aGVsbG8="`)
}
