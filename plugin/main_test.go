package plugin

import (
	"bytes"
	"context"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/sandbox"
)

// The test binary is its own builder and its own host: everything here runs as real processes.
const (
	builderArg = "test-builder"
	hostArg    = "test-host"
)

func TestMain(m *testing.M) {
	sandbox.InitMain()
	if len(os.Args) > 2 && os.Args[1] == builderArg {
		os.Exit(builderMain(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == hostArg {
		os.Exit(hostMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// soon is what a test waits at most for something that takes no time; long before it a test ends.
const soon = 20 * time.Second

// self is the test binary.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

// marker returns a word that no other process has among its arguments. It is a number, so that sleep takes it.
func marker() string {
	return "86400." + strconv.FormatUint(rand.Uint64(), 10)
}

// options start the test builder in the given mode.
func options(t testing.TB, mode, mark string, isolate bool) Options {
	t.Helper()
	return Options{
		Command: []string{self(t), builderArg, mode, mark},
		Sandbox: isolate,
		Report:  func(s string) { t.Errorf("no isolation here: %s", s) },
	}
}

// bothWays runs a test without and with isolation.
func bothWays(t *testing.T, run func(t *testing.T, isolate bool)) {
	t.Run("plain", func(t *testing.T) { run(t, false) })
	t.Run("isolated", func(t *testing.T) { run(t, true) })
}

// start starts a builder that is closed, and gone without a trace, when the test ends.
func start(t *testing.T, opts Options) *Process {
	t.Helper()
	p, err := Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		requireNoDir(t, p)
	})
	return p
}

func requireNoDir(t *testing.T, p *Process) {
	t.Helper()
	_, err := os.Lstat(p.dir.Path)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// processes returns the ids of the processes that have the marker among their arguments.
func processes(mark string) []string {
	var pids []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if bytes.Contains(b, []byte(mark)) && filepath.Base(dir) != strconv.Itoa(os.Getpid()) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}

func requireGone(t *testing.T, mark string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(processes(mark)) == 0 }, soon, 5*time.Millisecond,
		"processes are left behind")
}

// requireNoZombies checks that no child of this process waits to be reaped.
func requireNoZombies(t *testing.T) {
	t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, _ := os.ReadFile(name)
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[0] == "Z" && f[1] == strconv.Itoa(os.Getpid()) {
			t.Errorf("zombie: %s", b)
		}
	}
}

const outputPath = "out"

// input is the one file of the test Action's input root.
var input = []byte("what the Action declares")

// newAction stores an Action whose Command has the given arguments.
func newAction(t testing.TB, cas cache.CAS, args ...string) digest.Digest {
	t.Helper()
	ctx := context.Background()
	d, err := cache.PutBlob(ctx, cas, input)
	require.NoError(t, err)
	var b merkle.Builder
	require.NoError(t, b.File("dir/input", d))
	tree, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tree.Put(ctx, cas))
	command, err := cache.PutMessage(ctx, cas, &repb.Command{Arguments: append([]string{"test"}, args...), OutputPaths: []string{outputPath}})
	require.NoError(t, err)
	action, err := cache.PutMessage(ctx, cas, &repb.Action{CommandDigest: command.Proto(), InputRootDigest: tree.Root().Proto()})
	require.NoError(t, err)
	return action
}

// outputs returns the files of a result's one output directory.
func outputs(t *testing.T, cas cache.CAS, result *repb.ActionResult) map[string]string {
	t.Helper()
	require.Len(t, result.GetOutputDirectories(), 1)
	root, err := digest.FromProto(result.GetOutputDirectories()[0].GetRootDirectoryDigest())
	require.NoError(t, err)
	tree, err := merkle.Load(t.Context(), cas, root)
	require.NoError(t, err)
	files := map[string]string{}
	for path, d := range tree.Files() {
		b, err := cache.ReadBlob(t.Context(), cas, d, 1<<20)
		require.NoError(t, err)
		files[path] = string(b)
	}
	return files
}

// secret stores a blob that no Action declares and returns its digest.
func secret(t *testing.T, cas cache.CAS) digest.Digest {
	t.Helper()
	d, err := cache.PutBlob(t.Context(), cas, []byte("somebody else's "+hex.EncodeToString([]byte(t.Name()))))
	require.NoError(t, err)
	return d
}

func newStore() *memory.Store { return memory.New() }
