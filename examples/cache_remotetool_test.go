package examples

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCacheRemotetool has remotetool upload a directory, a blob, and bring both back.
func TestCacheRemotetool(t *testing.T) {
	tool := filepath.Join(clients(t), "bin/remotetool")
	p := servePexcache(t)
	run := func(operation string, args ...string) string {
		return client(t, "", nil, tool, append([]string{
			"--service", p.grpc, "--service_no_security", "--instance", "", "--alsologtostderr", "--operation", operation,
		}, args...)...)
	}
	dir := t.TempDir()
	in := map[string]string{
		"a.txt": "hello\n", "deep/er/b.txt": "", "deep/run.sh": "#!/bin/sh\n", "big.bin": noise(1, 9<<20), "text.txt": string(make([]byte, 3<<20)),
	}
	writeTree(t, filepath.Join(dir, "in"), in)
	require.NoError(t, os.Symlink("../a.txt", filepath.Join(dir, "in/deep/link")))

	run("upload_dir", "--path", filepath.Join(dir, "in"), "--symlink_behavior", "preserve", "--json", filepath.Join(dir, "stats.json"))
	b, err := os.ReadFile(filepath.Join(dir, "stats.json"))
	require.NoError(t, err)
	var stats struct {
		RootDigest struct {
			Hash string
			Size int64
		}
	}
	require.NoError(t, json.Unmarshal(b, &stats), "%s", b)
	root := fmt.Sprintf("%s/%d", stats.RootDigest.Hash, stats.RootDigest.Size)
	run("download_dir", "--digest", root, "--path", filepath.Join(dir, "out"))
	want := maps.Clone(in)
	want["deep/link"] = "-> ../a.txt"
	require.Equal(t, want, readTree(t, filepath.Join(dir, "out")))
	blob, content := digestOf(noise(2, 5<<20)), noise(2, 5<<20)
	writeTree(t, dir, map[string]string{"blob": content})
	info, err := os.Stat(filepath.Join(dir, "out/deep/run.sh"))
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&0o100, "run.sh is executable")

	require.Contains(t, run("upload_blob", "--path", filepath.Join(dir, "blob")), blob)
	run("download_blob", "--digest", blob, "--path", filepath.Join(dir, "blob.out"))
	got, err := os.ReadFile(filepath.Join(dir, "blob.out"))
	require.NoError(t, err)
	require.Equal(t, content, string(got))
}
