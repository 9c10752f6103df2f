package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/worker"
)

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// serving is a program that listens on a port as said, and goes on for a minute.
func serving(t *testing.T, listen string) *worker.Worker {
	python, err := exec.LookPath("python3")
	require.NoError(t, err)
	w, err := worker.Start(worker.Spec{
		Program: python, Args: []string{"-c", "import os, socket, sys, time\n" + listen + "\ntime.sleep(60)"},
		Dir: t.TempDir(), Log: func(line []byte) { t.Logf("%s", line) }, Grace: time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(func() { w.Stop(context.Background()) })
	return w
}

// TestListening finds the worker's listener where it is, and nobody else's.
func TestListening(t *testing.T) {
	listen := `
def listen(address, family=socket.AF_INET):
    global s
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
    s.bind((address, %d))
    s.listen()
`
	for name, how := range map[string]string{
		"itself":       `listen("127.0.0.1")`,
		"everywhere":   `listen("0.0.0.0")`,
		"both":         `listen("::", socket.AF_INET6)`,
		"a child":      "if os.fork() == 0:\n    listen('127.0.0.1')",
		"an orphan":    "if os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n    listen('127.0.0.1')\nelse:\n    os.wait()",
		"not there":    `listen("127.0.0.2")`,
		"without that": ``,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			w := serving(t, fmt.Sprintf(listen, port)+how)
			if name == "not there" || name == "without that" {
				time.Sleep(300 * time.Millisecond)
				_, err := w.Listening(port)
				require.ErrorIs(t, err, worker.ErrNobody)
				return
			}
			require.Eventually(t, func() bool {
				found, err := w.Listening(port)
				require.True(t, err == nil || errors.Is(err, worker.ErrNobody), "%v", err)
				return len(found) == 1
			}, time.Minute, 10*time.Millisecond)
		})
	}
}

// TestListeningStranger: somebody else listens there, alone, beside the worker, or before it at a narrower address.
func TestListeningStranger(t *testing.T) {
	port := freePort(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	defer l.Close()
	w := serving(t, fmt.Sprintf(`
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
try:
    s.bind(("::1", %d))
    s.listen()
except OSError as err:
    print(err, flush=True)
open("listens", "w").close()
`, port))
	time.Sleep(300 * time.Millisecond)
	_, err = w.Listening(port)
	require.ErrorIs(t, err, worker.ErrStranger)
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
	w := serving(t, fmt.Sprintf(`
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
s = socket.socket()
s.bind(("127.0.0.1", %d))
s.listen()
`, port))
	require.Eventually(t, func() bool {
		found, err := w.Listening(port)
		require.True(t, err == nil || errors.Is(err, worker.ErrNobody), "%v", err)
		return len(found) == 1
	}, time.Minute, 10*time.Millisecond)
	_, err = os.Readlink(fmt.Sprintf("/proc/%d/fd/0", w.PID()))
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = w.Listening(l.Addr().(*net.TCPAddr).Port)
	require.ErrorIs(t, err, worker.ErrStranger)
}
