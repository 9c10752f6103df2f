package codeserver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/cache/open"
	cacheserver "github.com/pexpress/pexpress/cache/server"
	"github.com/pexpress/pexpress/codeserver/client"
)

// chaosEnv has the test's binary be one of the processes of a world: what it is says a chaosRole.
const chaosEnv = "CODESERVER_TEST_CHAOS"

// chaosRole is what a process of a world is told.
type chaosRole struct {
	CacheDir string // it is the cache, and keeps it there
	Listen   string

	State, Cache string // it is the codeserver
	Skew         time.Duration
	Users        Users
}

func beChaos(text string) {
	var r chaosRole
	err := json.Unmarshal([]byte(text), &r)
	if err == nil && r.CacheDir != "" {
		err = r.serveCache()
	} else if err == nil {
		err = r.serveCode()
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (r *chaosRole) serveCache() error {
	d, err := disk.Open(r.CacheDir, disk.Options{})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", r.Listen)
	if err != nil {
		return err
	}
	g := grpc.NewServer()
	cacheserver.Register(g, cacheserver.Single(d, d))
	fmt.Println("serving", l.Addr())
	return g.Serve(l)
}

func (r *chaosRole) serveCode() error {
	s, err := Open(Options{
		State: r.State, StopGrace: time.Second, Keep: 3, AdoptWithin: 2 * time.Minute, Users: r.Users,
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		health: healthTimes{every: time.Second, timeout: 5 * time.Second, silent: time.Minute, busy: time.Minute},
		now:    func() time.Time { return time.Now().Add(r.Skew) },
		Open: func(ctx context.Context) (cache.CAS, io.Closer, error) {
			cas, _, closer, err := open.Open(ctx, r.Cache)
			return cas, closer, err
		},
	})
	if err != nil {
		return err
	}
	g := grpc.NewServer()
	s.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("serving", l.Addr())
	go func() { _ = g.Serve(l) }()
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	sig := <-ends
	g.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if sig == syscall.SIGTERM {
		return s.Leave(ctx)
	}
	return s.Close(ctx)
}

// process is one of a world's.
type process struct {
	cmd     *exec.Cmd
	address string
}

func startRole(r chaosRole, log io.Writer) (*process, error) {
	role, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), chaosEnv+"="+string(role), serveEnv+"=")
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "serving ")
	if err != nil || !ok {
		return nil, fmt.Errorf("%q: %w", line, cmd.Wait())
	}
	return &process{cmd, address}, nil
}

func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	_ = p.cmd.Wait()
}

// world is a cache and a codeserver, in processes of their own, and what is wrong with them.
type world struct {
	t          *testing.T
	dir, state string
	log        *os.File // of the processes
	cas        cache.CAS
	closer     io.Closer
	cacheProc  *process
	cacheAddr  string
	server     *process
	users      Users
	*client.Client

	small bool           // the state directory is a file system of its own, which can be filled
	ills  map[string]int // and for how many steps yet
}

const (
	cacheGone = "cache gone"
	cacheCut  = "cache cut off"
	diskFull  = "disk full"
)

// smallDisk is the size of the state directory's file system.
const smallDisk = 96 << 20

func newWorld(t *testing.T, users Users) *world {
	dir := t.TempDir()
	w := &world{t: t, dir: dir, state: filepath.Join(dir, "state"), users: users, ills: map[string]int{}}
	// What has a user of its own has to reach its files.
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	require.NoError(t, os.Mkdir(w.state, 0o755))
	err := unix.Mount("chaos", w.state, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", smallDisk))
	if w.small = err == nil; w.small {
		// A zygote of a codeserver that was killed ends by itself, a moment later.
		t.Cleanup(func() { eventually(t, func() bool { return unix.Unmount(w.state, 0) == nil }, "nobody uses it") })
	} else {
		t.Logf("the disk is not filled: no file system for it (%v)", err)
	}
	w.log, err = os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	w.cacheAddr = "127.0.0.1:0"
	w.startCache()
	w.cas, _, w.closer, err = open.Open(t.Context(), "grpc://"+w.cacheAddr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.closer.Close(); w.cacheProc.end(syscall.SIGKILL) })
	w.serve(0)
	t.Cleanup(func() {
		_ = w.Client.Close()
		w.server.end(syscall.SIGKILL)
		_ = Stop(context.Background(), w.state, nil)
	})
	return w
}

func (w *world) startCache() {
	p, err := startRole(chaosRole{CacheDir: filepath.Join(w.dir, "cache"), Listen: w.cacheAddr}, w.log)
	require.NoError(w.t, err)
	w.cacheProc, w.cacheAddr = p, p.address
}

// serve starts the codeserver.
func (w *world) serve(skew time.Duration) {
	p, err := startRole(chaosRole{State: w.state, Cache: "grpc://" + w.cacheAddr, Skew: skew, Users: w.users}, w.log)
	require.NoError(w.t, err)
	w.server = p
	w.Client, err = client.Dial(w.t.Context(), p.address)
	require.NoError(w.t, err)
}

// endServer ends the codeserver in some way.
func (w *world) endServer(sig syscall.Signal) {
	w.server.end(sig)
	_ = w.Client.Close()
}

func (w *world) filler() string { return filepath.Join(w.state, "filler") }

// fill leaves no byte on the disk.
func (w *world) fill() {
	f, err := os.Create(w.filler())
	require.NoError(w.t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

// heal ends an ill.
func (w *world) heal(ill string) {
	switch ill {
	case cacheGone:
		w.startCache()
	case cacheCut:
		require.NoError(w.t, w.cacheProc.cmd.Process.Signal(syscall.SIGCONT))
	case diskFull:
		require.NoError(w.t, os.Remove(w.filler()))
	}
	delete(w.ills, ill)
}

func (w *world) healAll() {
	for ill := range w.ills {
		w.heal(ill)
	}
}

func (w *world) cacheThere() bool { return w.ills[cacheGone] == 0 && w.ills[cacheCut] == 0 }

// zygotes lists the codeserver's.
func (w *world) zygotes() []int {
	var found []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		args, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if strings.Contains(string(args), w.state) && strings.Contains(string(args), ".py\x00serve\x00") {
			pid, _ := strconv.Atoi(filepath.Base(d))
			if !ended(pid) {
				found = append(found, pid)
			}
		}
	}
	return found
}

func openFiles(pid int) int {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(fds)
}
