package examples

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pidProject is webProject, which says at /pid in which process it runs.
func pidProject(word string) map[string]string {
	p := webProject(word)
	p["web/__main__.py"] = strings.Replace(p["web/__main__.py"], "else DATA)", `else str(os.getpid()) if self.path == "/pid" else DATA)`, 1)
	return p
}

// TestUpgrade executes the codeserver anew again and again while requests come, then leaves its versions, and ends them.
func TestUpgrade(t *testing.T) {
	h := newHost(t, pidProject("one"))
	h.serve = []string{"--adopt-within", "1m"}
	h.start()
	address, _ := h.deploy()
	pid := h.get(address, "/pid")
	stop := hammer(t, address, "one")
	for i := range 5 {
		require.NoError(t, h.server.Process.Signal(syscall.SIGUSR2))
		require.Eventually(t, func() bool { return strings.Count(h.said(), "msg=serving") == i+2 }, 30*time.Second, 10*time.Millisecond)
		require.Equal(t, pid, h.get(address, "/pid"))
	}
	stop()
	h.write("web/word.py", "WORD = \"two\"\n")
	h.deploy()
	require.Equal(t, "two", h.get(address, "/"))
	require.Eventually(t, func() bool { return len(h.zombies()) == 0 }, 30*time.Second, 10*time.Millisecond,
		"a shim whose parent this process is by chance is reaped")

	pid = h.get(address, "/pid")
	h.end(syscall.SIGTERM)
	h.start()
	require.Equal(t, pid, h.get(address, "/pid"))
	h.end(syscall.SIGINT)
	require.Empty(t, h.processes())
	h.start()
	h.await(address, "two")

	h.end(syscall.SIGTERM)
	require.NotEmpty(t, h.processes())
	out, err := exec.Command(filepath.Join(bin, "codeserver"), "stop", "--state", filepath.Join(h.dir, "state")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, h.processes())
	h.start()
	h.await(address, "two")
	out, err = exec.Command(filepath.Join(bin, "codeserver"), "stop", "--state", filepath.Join(h.dir, "state")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, h.server.Wait())
	h.server = nil
	require.Empty(t, h.processes())
	require.NoFileExists(t, filepath.Join(h.dir, "cs.sock"))
}

// TestUpgradeRefused asks the codeserver to execute what it cannot: it goes on serving until there is something that it can.
func TestUpgradeRefused(t *testing.T) {
	h := newHost(t, pidProject("one"))
	h.serve = []string{"--adopt-within", "1m"}
	h.program = filepath.Join(h.dir, "codeserver")
	good, err := os.ReadFile(filepath.Join(bin, "codeserver"))
	require.NoError(t, err)
	install := func(content []byte) {
		require.NoError(t, os.WriteFile(h.program+".new", content, 0o755))
		require.NoError(t, os.Rename(h.program+".new", h.program))
	}
	install(good)
	h.start()
	address, _ := h.deploy()
	pid := h.get(address, "/pid")
	refused := func(times int, why string) {
		require.NoError(t, h.server.Process.Signal(syscall.SIGUSR2))
		require.Eventually(t, func() bool { return strings.Count(h.said(), "no upgrade") == times }, 30*time.Second, 10*time.Millisecond)
		require.Contains(t, h.said(), why)
		require.Equal(t, pid, h.get(address, "/pid"))
		h.run("status")
	}
	install([]byte("\x7fELF, cut off"))
	refused(1, "exec format error")
	require.NoError(t, os.Remove(h.program))
	refused(2, "no such file")
	install(good)
	require.NoError(t, h.server.Process.Signal(syscall.SIGUSR2))
	require.Eventually(t, func() bool { return strings.Count(h.said(), "msg=serving") == 2 }, 30*time.Second, 10*time.Millisecond)
	require.Equal(t, pid, h.get(address, "/pid"))
}

func (h *host) said() string {
	b, err := os.ReadFile(filepath.Join(h.dir, "codeserver.log"))
	require.NoError(h.t, err)
	return string(b)
}

// zombies lists children of the codeserver that nobody has waited for.
func (h *host) zombies() []string {
	var found []string
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, _ := os.ReadFile(path)
		if bytes.Contains(b, []byte(fmt.Sprintf(") Z %d ", h.server.Process.Pid))) {
			found = append(found, string(b))
		}
	}
	return found
}

// manager is systemd as far as a service sees it: it passes sockets, takes what the service says, and keeps descriptors.
type manager struct {
	t      *testing.T
	log    string
	notify string
	socket *os.File // of the socket unit

	mu    sync.Mutex
	said  []string
	store map[string]*os.File
}

func newManager(t *testing.T, dir string) *manager {
	m := &manager{t: t, log: filepath.Join(dir, "codeserver.log"), notify: filepath.Join(t.TempDir(), "notify"), store: map[string]*os.File{}}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.notify, Net: "unixgram"})
	require.NoError(t, err)
	l, err := net.Listen("unix", filepath.Join(dir, "cs.sock"))
	require.NoError(t, err)
	m.socket, err = l.(*net.UnixListener).File()
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(); l.Close(); m.socket.Close() })
	go func() {
		b, oob := make([]byte, 4096), make([]byte, 256)
		for {
			n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			m.take(string(b[:n]), oob[:oobn])
		}
	}()
	return m
}

func (m *manager) take(said string, oob []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = append(m.said, said)
	_, name, _ := strings.Cut(said, "FDNAME=")
	switch {
	case strings.HasPrefix(said, "FDSTOREREMOVE=1"):
		if f := m.store[name]; f != nil {
			f.Close()
		}
		delete(m.store, name)
	case strings.HasPrefix(said, "FDSTORE=1"):
		messages, err := unix.ParseSocketControlMessage(oob)
		if err != nil || len(messages) != 1 {
			return
		}
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			m.store[name] = os.NewFile(uintptr(fds[0]), name)
		}
	}
}

// await waits for a state that the service tells, and forgets what came until then.
func (m *manager) await(pattern string) {
	m.t.Helper()
	re := regexp.MustCompile("(?m)^" + pattern + "$")
	defer func() {
		if m.t.Failed() {
			b, _ := os.ReadFile(m.log)
			m.t.Logf("%s", b)
		}
	}()
	require.Eventually(m.t, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, s := range m.said {
			if re.MatchString(s) {
				m.said = m.said[i+1:]
				return true
			}
		}
		return false
	}, 30*time.Second, 5*time.Millisecond, "%s was not told, but %q", pattern, &m.said)
}

func (m *manager) stored(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store[name] != nil
}

// start starts the service, and waits until it is ready.
func (m *manager) start(h *host) {
	log, err := os.OpenFile(filepath.Join(h.dir, "codeserver.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(m.t, err)
	defer log.Close()
	m.mu.Lock()
	names, files := []string{"codeserver.socket"}, []*os.File{m.socket}
	for name, f := range m.store {
		names, files = append(names, name), append(files, f)
	}
	m.mu.Unlock()
	// The process has to know its own id before it is executed.
	h.server = exec.Command("/bin/sh", append([]string{
		"-c", `LISTEN_PID=$$ exec "$@"`, "sh", filepath.Join(bin, "codeserver"),
		"serve", "--state", filepath.Join(h.dir, "state"), "--cache", h.cache(), "--listen", h.socket(),
	}, h.serve...)...)
	h.server.Env = append(os.Environ(), fmt.Sprint("LISTEN_FDS=", len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"),
		"NOTIFY_SOCKET="+m.notify, "WATCHDOG_USEC=300000")
	h.server.ExtraFiles = files
	h.server.Stdout, h.server.Stderr = log, log
	require.NoError(m.t, h.server.Start())
	m.await("READY=1")
}

func (m *manager) kill(h *host, sig syscall.Signal) {
	require.NoError(m.t, h.server.Process.Signal(sig))
	_ = h.server.Wait()
	h.server = nil
}

// TestUnderSystemd plays systemd: readiness, watchdog, socket activation, and the store in which sockets outlive a restart
// and a crash.
func TestUnderSystemd(t *testing.T) {
	h := newHost(t, pidProject("one"))
	h.serve = []string{"--adopt-within", "1m"}
	m := newManager(t, h.dir)
	t.Cleanup(func() {
		if h.server != nil {
			m.kill(h, syscall.SIGINT)
		}
	})
	m.start(h)
	m.await("WATCHDOG=1")
	address, _ := h.deploy()
	require.Eventually(t, func() bool { return m.stored("location-web") }, 20*time.Second, 5*time.Millisecond)
	pid := h.get(address, "/pid")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		m.kill(h, sig)
		if sig == syscall.SIGTERM {
			m.await("STOPPING=1")
		}
		answer := make(chan error, 1)
		go func() {
			resp, err := http.Get("http://" + address + "/")
			if err == nil {
				err = resp.Body.Close()
			}
			answer <- err
		}()
		m.start(h)
		require.NoError(t, <-answer, "who came when nobody was there was not refused")
		require.Equal(t, pid, h.get(address, "/pid"))
		h.run("status")
	}
	require.NoError(t, h.server.Process.Signal(syscall.SIGUSR2))
	m.await(`RELOADING=1\nMONOTONIC_USEC=\d+`)
	m.await("READY=1")
	m.await("WATCHDOG=1")
	require.Equal(t, pid, h.get(address, "/pid"))

	h.run("remove", "web")
	require.Eventually(t, func() bool { return !m.stored("location-web") }, 20*time.Second, 5*time.Millisecond)
	m.kill(h, syscall.SIGINT)
	m.await("STOPPING=1")
	require.Empty(t, h.processes())
	require.FileExists(t, filepath.Join(h.dir, "cs.sock"), "the socket unit's is systemd's")
}

// TestUnits starts the codeserver with what the units of examples/codeserver say.
func TestUnits(t *testing.T) {
	unit, err := os.ReadFile("codeserver/codeserver.service")
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/codeserver serve (.*)$`).FindSubmatch(unit)
	require.NotNil(t, m)
	socket, err := os.ReadFile("codeserver/codeserver.socket")
	require.NoError(t, err)
	control := regexp.MustCompile(`(?m)^ListenStream=(.*)$`).FindSubmatch(socket)
	require.NotNil(t, control)
	require.Contains(t, string(m[1]), "--listen unix://"+string(control[1])+" ", "the socket is the one that is passed")
	args := strings.Fields(string(m[1]))
	said := codeserverFails(t, 2, append(append([]string{"serve"}, args...), "--keep", "0", "--state", t.TempDir())...)
	require.Contains(t, said, "--keep 0", "the flags are known")

	// The user has no home, and all but these directories is read only.
	of := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindSubmatch(unit)
		require.NotNil(t, m, name)
		return string(m[1])
	}
	require.Contains(t, string(m[1]), "--state /var/lib/"+of("StateDirectory")+" ")
	require.Equal(t, "PEXPRESS_HOME=/var/cache/"+of("CacheDirectory"), of("Environment"))
}
