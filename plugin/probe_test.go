package plugin

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// findings is what a builder finds out about the world it runs in.
type findings struct {
	Root, Etc, Home []string // entries of directories
	Readable        []string // which of the files asked for
	Connected       []string // which of the addresses asked for
	Interfaces      []string // those that are up
	Environ         []string
	WroteProgram    bool
	Capabilities    uint32
	BoundingSet     int
	NoNewPrivs      bool
	Pid, Parent     int
	Hostname        string
	ReadSecret      string // the errors of asking the CAS for what is not declared
	MissingSecret   bool
	MissingInput    bool
	MissingWritten  bool
	ReadWritten     string
	CouldMount      bool
	CouldUnmount    bool
}

// probe looks around. Its arguments: a digest that is not declared, an address, then files.
func probe(ctx context.Context, cas cache.CAS, args []string) []byte {
	f := findings{Environ: os.Environ(), Pid: os.Getpid(), Parent: os.Getppid()}
	list := func(dir string) (names []string) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	f.Root, f.Etc, f.Home = list("/"), list("/etc"), list("/root")
	for _, name := range append([]string{"/etc/passwd", "/proc/1/environ", "/proc/self/exe", "/sys/kernel"}, args[3:]...) {
		if _, err := os.Stat(name); err == nil {
			f.Readable = append(f.Readable, name)
		}
	}
	for _, network := range []string{"tcp:" + args[2], "tcp:127.0.0.1:22", "udp:8.8.8.8:53"} {
		kind, address, _ := strings.Cut(network, ":")
		if c, err := net.Dial(kind, address); err == nil {
			c.Close()
			f.Connected = append(f.Connected, network)
		}
	}
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		if i.Flags&net.FlagUp != 0 {
			f.Interfaces = append(f.Interfaces, i.Name)
		}
	}
	if f.Pid == 1 {
		f.probeMounts()
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_ = unix.Capget(&header, &data[0])
	f.Capabilities = data[0].Effective | data[0].Permitted | data[0].Inheritable | data[1].Effective | data[1].Permitted
	for c := range 64 {
		if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && set == 1 {
			f.BoundingSet++
		}
	}
	set, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	f.NoNewPrivs = set == 1
	f.probeCAS(ctx, cas, mustParse(args[1]))
	b, _ := json.Marshal(f)
	return b
}

// probeMounts tries what would do harm outside of a sandbox: it runs only as the first process of a pid namespace.
func (f *findings) probeMounts() {
	if w, err := os.OpenFile("/builder", os.O_WRONLY, 0); err == nil {
		w.Close()
		f.WroteProgram = true
	}
	f.WroteProgram = f.WroteProgram || os.Chmod("/builder", 0o777) == nil || os.Remove("/builder") == nil
	dir, err := os.MkdirTemp("", "mount")
	f.CouldMount = err != nil || unix.Mount("tmpfs", dir, "tmpfs", 0, "") == nil
	f.CouldUnmount = unix.Unmount("/builder", unix.MNT_DETACH) == nil
}

func (f *findings) probeCAS(ctx context.Context, cas cache.CAS, hidden digest.Digest) {
	missing := func(d digest.Digest) bool {
		ds, err := cas.FindMissing(ctx, []digest.Digest{d})
		return err == nil && len(ds) == 1
	}
	f.ReadSecret = "read"
	if _, err := cache.ReadBlob(ctx, cas, hidden, 1<<20); err != nil {
		f.ReadSecret = err.Error()
	}
	f.MissingSecret = missing(hidden)
	f.MissingInput = missing(digest.FromBytes(input))
	own := []byte("what the builder writes")
	before := missing(digest.FromBytes(own))
	d, _ := cache.PutBlob(ctx, cas, own)
	f.MissingWritten = !before || missing(d)
	b, _ := cache.ReadBlob(ctx, cas, d, 1<<20)
	f.ReadWritten = string(b)
}

// look runs a probe and returns what it found.
func look(t *testing.T, opts Options, args ...string) findings {
	t.Helper()
	cas := newStore()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	p := start(t, opts)
	args = append([]string{secret(t, cas).String(), l.Addr().String()}, args...)
	result, err := p.Build(t.Context(), cas, newAction(t, cas, args...))
	require.NoError(t, err)
	var f findings
	require.NoError(t, json.Unmarshal([]byte(outputs(t, cas, result)["report"]), &f))
	return f
}

func TestScopeOfEndpoint(t *testing.T) {
	bothWays(t, func(t *testing.T, isolate bool) {
		f := look(t, options(t, "probe", marker(), isolate))
		require.Contains(t, f.ReadSecret, "not found")
		require.True(t, f.MissingSecret)
		require.False(t, f.MissingInput)
		require.False(t, f.MissingWritten)
		require.Equal(t, "what the builder writes", f.ReadWritten)
	})
}

// TestIsolation checks the world of an isolated builder.
func TestIsolation(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	own := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(own, nil, 0o666))
	f := look(t, options(t, "probe", marker(), true), own, self(t), "/dev/null")
	allowed := []string{"builder", "dev", "tmp"}
	if linked(t) { // the test binary needs libraries
		allowed = append(allowed, "bin", "etc", "lib", "lib64", "usr")
	}
	require.Subset(t, allowed, f.Root)
	require.Subset(t, []string{"ld.so.cache"}, f.Etc)
	require.Empty(t, f.Home)
	require.Equal(t, []string{"/dev/null"}, f.Readable)
	require.Empty(t, f.Connected)
	require.Empty(t, f.Interfaces)
	require.NotContains(t, strings.Join(f.Environ, " "), "hunter2")
	require.False(t, f.WroteProgram)
	require.False(t, f.CouldMount)
	require.False(t, f.CouldUnmount)
	require.Zero(t, f.Capabilities)
	require.Zero(t, f.BoundingSet)
	require.True(t, f.NoNewPrivs)
	require.Equal(t, 1, f.Pid)
	require.Equal(t, 0, f.Parent)
}

// TestReadOnly checks that what Options.ReadOnly names can be read and no more than that.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o666))
	opts := options(t, "probe", marker(), true)
	opts.ReadOnly = []string{dir}
	f := look(t, opts, dir+"/file")
	require.Equal(t, []string{dir + "/file"}, f.Readable)
}

// TestNoSecretsInPlainEnvironment checks that a builder that is not isolated does not get the host's variables either.
func TestNoSecretsInPlainEnvironment(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	t.Setenv("TZ", "Asia/Kathmandu")
	f := look(t, options(t, "probe", marker(), false))
	require.NotContains(t, strings.Join(f.Environ, " "), "hunter2")
	require.NotContains(t, strings.Join(f.Environ, " "), "Kathmandu")
	require.Contains(t, f.Connected[0], "tcp:127.0.0.1", "the probe can tell: without isolation there is a network")
	require.Contains(t, f.Readable, "/etc/passwd")
}

// linked reports whether the test binary is linked dynamically, as it is with cgo.
func linked(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile(self(t))
	require.NoError(t, err)
	return strings.Contains(string(b), "ld-linux")
}
