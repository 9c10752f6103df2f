package zygote_test

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/sandbox"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

// writes is code that writes to memory which its dependency has made, and counts the page faults that come of it.
const writes = `
import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(0, len(dependency.MEMORY), 4096):
    dependency.MEMORY[i] = 1
print("faults", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, sum(dependency.MEMORY), flush=True)
`

// TestCopied sees that a version finds copies of that memory which the one before it has written to, and only copies, when it was
// forked ahead and had the time to make them.
func TestCopied(t *testing.T) {
	b := newBench(t, remembers+"MEMORY = bytearray(16 << 20)\n")
	b.start("", false, nil)
	faults := func() (n int) {
		s := b.start(writes, false, nil)
		require.True(t, s.warm, "%s", b.log)
		_, said, _ := strings.Cut(s.out.String(), "faults ")
		var sum int
		_, err := fmt.Sscan(said, &n, &sum)
		require.NoError(t, err, "%s", s.out)
		require.Equal(t, 4096, sum, "what another version has written is not there")
		return n
	}
	first := faults()
	require.NotZero(t, first)
	for range 3 {
		deadline := time.Now().Add(time.Minute)
		for n := first; n > first/4; n = faults() {
			require.True(t, time.Now().Before(deadline), "%d page faults, at first %d", n, first)
			time.Sleep(300 * time.Millisecond)
		}
	}
	require.Empty(t, b.log.String())
}

// TestShare has a version use up what its zygote's group may have: the next ones are forked from another zygote.
func TestShare(t *testing.T) {
	host := limits.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	var made []*limits.Group
	b := newBench(t, remembers)
	b.groups = func() (*sandbox.Spec, *limits.Group, error) {
		g, err := host.Group("zygote", limits.Limits{Memory: 128 << 20})
		made = append(made, g)
		return nil, g, err
	}
	b.start("", false, nil)
	s := b.start("", false, nil)
	require.True(t, s.warm, "%s", b.log)
	from := s.importer(t)
	if len(made) == 0 || len(made[0].Dirs()) == 0 {
		t.Skip("this host has no cgroups to make groups in")
	}
	for _, dir := range made[0].Dirs() {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(from)), 0))
	}
	require.Equal(t, from, b.start("", false, nil).importer(t))
	large := b.start("large = b'x' * (72 << 20)", false, nil)
	require.Equal(t, from, large.importer(t))
	next := b.start("", false, nil)
	require.True(t, next.warm, "%s", b.log)
	require.NotEqual(t, from, next.importer(t))
	require.Len(t, made, 2)
}

// TestCleared sees that a zygote is known to have ended before what dies with its group does: a version that it was just forking.
func TestCleared(t *testing.T) {
	script, err := zygote.Script(t.TempDir())
	require.NoError(t, err)
	group, err := limits.Open(t.TempDir(), slog.New(slog.DiscardHandler)).Group("zygote", limits.Limits{})
	require.NoError(t, err)
	if len(group.Dirs()) == 0 {
		t.Skip("this host has no cgroups to make groups in")
	}
	z, err := zygote.Start(t.Context(), zygote.Config{Python: pythons(t)[0], Script: script, Env: []string{"PATH=/usr/bin:/bin"}, Group: group})
	require.NoError(t, err)
	other := exec.Command("sleep", "600")
	require.NoError(t, other.Start())
	for _, dir := range group.Dirs() {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(other.Process.Pid)), 0))
	}
	go z.Close()
	require.EqualError(t, other.Wait(), "signal: killed")
	select {
	case <-z.Done():
	default:
		require.Fail(t, "its zygote has not ended")
	}
	z.Close()
	require.NoDirExists(t, group.Dirs()[0])
}

// TestCopiedOfNothing has a version with terabytes of memory that it never touches: they are not looked at page by page.
func TestCopiedOfNothing(t *testing.T) {
	b := newBench(t, remembers+`
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_size_t]
PRIVATE_ANONYMOUS_NORESERVE = 0x4022
MAPPED = [libc.mmap(None, 1 << 44, 3, PRIVATE_ANONYMOUS_NORESERVE, -1, 0) for _ in range(6)]
assert ctypes.c_void_p(-1).value not in MAPPED
`)
	b.start("", false, nil)
	for range 2 {
		require.True(t, b.start("", false, nil).warm, "%s", b.log)
	}
	require.Empty(t, b.log.String())
}
