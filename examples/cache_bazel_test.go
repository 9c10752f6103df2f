package examples

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// bazel is a workspace on a host of its own: its output base is shared with no other.
type bazel struct {
	t         *testing.T
	workspace string
	root      string
	cache     string // the flag
	builds    int
}

func newBazel(t *testing.T, cache string) *bazel {
	clients(t)
	if _, err := exec.LookPath("bazel"); err != nil {
		t.Skip("needs Bazel: apt-get install bazel-bootstrap")
	}
	b := &bazel{t: t, workspace: filepath.Join(t.TempDir(), "workspace"), root: t.TempDir(), cache: "--remote_cache=" + cache}
	rule, err := os.ReadFile("testdata/bazel/tree.bzl")
	require.NoError(t, err)
	build, err := os.ReadFile("testdata/bazel/BUILD.in")
	require.NoError(t, err)
	writeTree(t, b.workspace, map[string]string{
		"WORKSPACE": "", "tree.bzl": string(rule), "BUILD": string(build), "in.txt": "hello\n",
	})
	t.Cleanup(func() {
		b.run("shutdown")
		// Its outputs are read-only, directories, too.
		_ = exec.Command("chmod", "-R", "u+w", b.root).Run()
	})
	return b
}

// run runs a Bazel command with the flags of a command line after it.
func (b *bazel) run(command string, args ...string) {
	startup := []string{"--nohome_rc", "--output_user_root=" + b.root, "--max_idle_secs=60", "--host_jvm_args=-Xmx512m", command}
	if b.t.Context().Err() == nil {
		client(b.t, b.workspace, nil, "bazel", append(startup, args...)...)
		return
	}
	cmd := exec.Command("bazel", startup...) // clean-up: the test's context has ended
	cmd.Dir = b.workspace
	_ = cmd.Run()
}

// build builds targets and returns how often each runner ran an action.
func (b *bazel) build(args ...string) map[string]int {
	b.builds++
	log := filepath.Join(b.root, fmt.Sprintf("log%d.json", b.builds))
	b.run("build", append([]string{b.cache, "--execution_log_json_file=" + log, "--color=no", "--curses=no"}, args...)...)
	f, err := os.Open(log)
	require.NoError(b.t, err)
	defer f.Close()
	runners := map[string]int{}
	for d := json.NewDecoder(f); ; {
		var spawn struct {
			Runner         string
			RemoteCacheHit bool
		}
		err := d.Decode(&spawn)
		if errors.Is(err, io.EOF) {
			return runners
		}
		require.NoError(b.t, err)
		require.Equal(b.t, spawn.RemoteCacheHit, spawn.Runner == hit)
		runners[spawn.Runner]++
	}
}

const (
	hit     = "remote cache hit"
	actions = 24 // that //:all needs, in testdata/bazel
)

// outputs reads what the workspace's actions made.
func (b *bazel) outputs() map[string]string {
	files := readTree(b.t, filepath.Join(b.workspace, "bazel-bin")+"/")
	maps.DeleteFunc(files, func(name, _ string) bool {
		return !slices.Contains([]string{"all.txt", "empty.txt", "large.bin", "out7.txt"}, name) && filepath.Base(filepath.Dir(name)) != "sub"
	})
	return files
}

// TestCacheBazel builds cold, then after a clean, then on a second host: there each action is a hit.
func TestCacheBazel(t *testing.T) {
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			clients(t)
			p := servePexcache(t)
			address := "grpc://" + p.grpc
			if protocol == "http" {
				address = "http://" + p.http
			}
			b := newBazel(t, address)
			cold := b.build("//:all", "//:links")
			require.Zero(t, cold[hit], "%v", cold)
			want := b.outputs()
			require.Len(t, want, 7)
			require.Equal(t, "-> a", want["links/sub/link"])
			require.Len(t, want["large.bin"], 9_000_006)

			b.run("clean")
			require.Equal(t, map[string]int{hit: actions + 1}, b.build("//:all", "//:links"))
			require.Equal(t, want, b.outputs())

			second := newBazel(t, address)
			require.Equal(t, map[string]int{hit: actions + 1}, second.build("//:all", "//:links"))
			require.Equal(t, want, second.outputs())
			if protocol == "grpc" {
				minimal(t, address, want)
			}
		})
	}
}

// minimal builds without the bytes, and with the bytes of one target afterwards.
func minimal(t *testing.T, address string, want map[string]string) {
	b := newBazel(t, address)
	require.Equal(t, map[string]int{hit: actions}, b.build("//:all", "--remote_download_minimal"))
	require.NoFileExists(t, filepath.Join(b.workspace, "bazel-bin/all.txt"))
	require.NoFileExists(t, filepath.Join(b.workspace, "bazel-bin/large.bin"))
	// An action that is new takes its inputs from the cache.
	build, err := os.ReadFile(filepath.Join(b.workspace, "BUILD"))
	require.NoError(t, err)
	writeTree(t, b.workspace, map[string]string{"BUILD": string(build) + `
genrule(name = "more", srcs = [":tree", ":out7.txt"], outs = ["more.txt"], cmd = "cat $(location :out7.txt) > $@")
genrule(name = "both", srcs = [":all", ":more"], outs = ["both.txt"], cmd = "cat $(SRCS) > $@")
`})
	b.run("build", "//:both", b.cache, "--remote_download_toplevel")
	got, err := os.ReadFile(filepath.Join(b.workspace, "bazel-bin/both.txt"))
	require.NoError(t, err)
	require.Equal(t, want["all.txt"]+want["out7.txt"], string(got))
}
