package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/worker"
)

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// reuse has several sockets listen at one address.
func reuse(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(cerr, err)
}

// serving is a program that has listened on a port as said, and goes on for a minute. What it forks may not have got that far.
func serving(t *testing.T, port int, how string) *worker.Worker {
	python, err := exec.LookPath("python3")
	require.NoError(t, err)
	program := fmt.Sprintf(`
import os, socket, time
def listen(address):
    global s
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if s.family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind((address, %d))
    s.listen()
%s
print("listens", flush=True)
time.sleep(60)
`, port, how)
	listens := make(chan struct{})
	told := sync.OnceFunc(func() { close(listens) })
	w, err := worker.Start(worker.Spec{
		Program: python, Args: []string{"-c", program}, Dir: t.TempDir(), Grace: time.Second,
		Log: func(line []byte) {
			t.Logf("%s", line)
			if string(line) == "listens" {
				told()
			}
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { w.Stop(context.Background()) })
	select {
	case <-listens:
	case <-w.Done():
		require.FailNow(t, "it has ended", "%v", w.Err())
	case <-time.After(time.Minute):
		require.FailNow(t, "it does not listen")
	}
	return w
}

// TestListening finds the worker's listener where it is, and nobody else's.
func TestListening(t *testing.T) {
	for name, how := range map[string]string{
		"itself":     `listen("127.0.0.1")`,
		"everywhere": `listen("0.0.0.0")`,
		"both":       `listen("::")`,
		"a child":    "if os.fork() == 0:\n    listen('127.0.0.1')",
		"an orphan":  "if os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n    listen('127.0.0.1')\nelse:\n    os.wait()",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			w := serving(t, port, how)
			require.Eventually(t, func() bool {
				found, err := w.Listening(port)
				require.True(t, err == nil || errors.Is(err, worker.ErrNobody), "%v", err)
				return len(found) == 1
			}, time.Minute, 10*time.Millisecond)
		})
	}
}

// TestListeningNobody: the worker listens elsewhere, or does not at all.
func TestListeningNobody(t *testing.T) {
	for _, how := range []string{`listen("127.0.0.2")`, ``} {
		port := freePort(t)
		_, err := serving(t, port, how).Listening(port)
		require.ErrorIs(t, err, worker.ErrNobody, how)
	}
}

// TestListeningIPv6: who listens on the port in IPv6 alone is neither a stranger on 127.0.0.1 nor the worker there.
func TestListeningIPv6(t *testing.T) {
	l, err := net.Listen("tcp6", "[::]:0") // with IPV6_V6ONLY
	require.NoError(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = serving(t, port, ``).Listening(port)
	require.ErrorIs(t, err, worker.ErrNobody)
	found, err := serving(t, port, `listen("127.0.0.1")`).Listening(port)
	require.NoError(t, err)
	require.Len(t, found, 1)
}

// TestListeningStranger: somebody else listens there, alone, beside the worker, or before it at a narrower address.
func TestListeningStranger(t *testing.T) {
	for _, how := range []string{`listen("127.0.0.2")`, `listen("127.0.0.1")`, `listen("0.0.0.0")`} {
		l, err := (&net.ListenConfig{Control: reuse}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		_, err = serving(t, port, how).Listening(port)
		require.ErrorIs(t, err, worker.ErrStranger, how)
	}
}

// TestListeningBlind asks where this process may not look into the worker's: the socket's user says whose it is.
func TestListeningBlind(t *testing.T) {
	if os.Getenv("PEXPRESS_TEST_BLIND") == "" {
		setpriv, err := exec.LookPath("setpriv")
		if err != nil || os.Getuid() != 0 {
			t.Skip("only root can give up looking into others' processes, with setpriv")
		}
		cmd := exec.Command(setpriv, "--bounding-set", "-sys_ptrace,-dac_override,-dac_read_search", "--inh-caps", "-all", "--", os.Args[0], "-test.run", "TestListeningBlind$", "-test.v")
		cmd.Env = append(os.Environ(), "PEXPRESS_TEST_BLIND=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestListeningBlind")
		return
	}
	port := freePort(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // root's
	require.NoError(t, err)
	defer l.Close()
	w := serving(t, port, `
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
listen("127.0.0.1")
def reopen():
    while True:
        os.dup2(0, 99)
        os.close(99)
import threading
threading.Thread(target=reopen, daemon=True).start()
`)
	for range 1000 { // what is looked at last may have been closed before
		found, err := w.Listening(port)
		require.NoError(t, err)
		require.Len(t, found, 1)
	}
	_, err = os.Readlink(fmt.Sprintf("/proc/%d/fd/0", w.PID()))
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = w.Listening(l.Addr().(*net.TCPAddr).Port)
	require.ErrorIs(t, err, worker.ErrStranger)
}
