package examples

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serveFails runs a codeserver that must end by itself, and returns what it said.
func serveFails(t *testing.T, args ...string) string {
	return codeserverFails(t, 1, append([]string{"serve"}, args...)...)
}

// serveMisused is serveFails for a command line that makes no sense.
func serveMisused(t *testing.T, args ...string) string {
	return codeserverFails(t, 2, append([]string{"serve"}, args...)...)
}

// codeserverFails runs the program, which must end with the status, and returns what it said.
func codeserverFails(t *testing.T, code int, args ...string) string {
	cmd := exec.Command(filepath.Join(bin, "codeserver"), args...)
	cmd.Env = append(os.Environ(), "PEXPRESS_CACHE=")
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, code, cmd.ProcessState.ExitCode(), "%s", out)
	return string(out)
}

// TestVersions asks the programs which release they are: the same one.
func TestVersions(t *testing.T) {
	version := func(program string) string {
		out, err := exec.Command(filepath.Join(bin, program), "--version").Output()
		require.NoError(t, err, program)
		return strings.TrimPrefix(string(out), program+" version ")
	}
	require.Regexp(t, `^\d+\.\d+\.\d+`, version("codeserver"))
	require.Equal(t, version("pexpress"), version("codeserver"))
}

// TestServeRefuses starts codeservers that cannot serve.
func TestServeRefuses(t *testing.T) {
	dir := t.TempDir()
	state, cache := filepath.Join(dir, "state"), filepath.Join(dir, "cache")
	local := []string{"--listen", "127.0.0.1:0", "--cache", cache}
	require.Contains(t, serveMisused(t, "--state", state, "--listen", "127.0.0.1:0", "--cache", "bogus://x"), "cache address")
	require.Contains(t, serveMisused(t, "--state", state, "--cache", cache, "--listen", "0.0.0.0:0"), "--allow-unauthenticated-remote-access")
	require.Contains(t, serveMisused(t, "--state", state, "--cache", cache, "--listen", "nowhere"), "use host:port or unix:///socket")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	require.Contains(t, serveFails(t, append(local, "--state", filepath.Join(dir, "file", "x"))...), "state directory")
	for _, form := range []string{"unix://", "unix:"} {
		require.Contains(t, serveFails(t, "--state", state, "--cache", cache, "--listen", form+filepath.Join(dir, "file")), "is no socket")
	}
	for address, want := range map[string]string{
		"0.0.0.0:0": "can be reached from other machines", "192.0.2.1:0": "can be reached from other machines", ":0": "can be reached from other machines",
		"nowhere": "use host:port", "unix:///x": "use host:port",
	} {
		require.Contains(t, serveFails(t, append(local, "--state", state, "--http", address)...), want, address)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	require.Contains(t, serveFails(t, "--state", state, "--cache", cache, "--listen", taken.Addr().String()), taken.Addr().String())
}

// TestCodeserverUsage starts it with command lines that make no sense, and is told where it is explained.
func TestCodeserverUsage(t *testing.T) {
	for want, args := range map[string][]string{
		`"state" not set; see 'codeserver serve --help'`:               {"serve"},
		`"state" not set; see 'codeserver stop --help'`:                {"stop"},
		`unknown flag: --sate; see 'codeserver serve --help'`:          {"serve", "--sate", "x"},
		`unknown command "sevre" for "codeserver"; see 'codeserver --`: {"sevre"},
		`accepts 1 arg(s), received 0; see 'codeserver token --help'`:  {"token"},
		`say 1 or more; see 'codeserver serve --help'`:                 {"serve", "--state", t.TempDir(), "--cache", t.TempDir(), "--listen", "127.0.0.1:0", "--keep", "0"},
	} {
		require.Contains(t, codeserverFails(t, 2, args...), want)
	}
	sound := []string{"--state", t.TempDir(), "--cache", t.TempDir(), "--listen", "127.0.0.1:0"}
	for want, args := range map[string][]string{
		"--users":                            {"--users", "5"},
		"say debug, info, warn or error":     {"--log-level", "loud"},
		"say text or json":                   {"--log-format", "xml"},
		"--stop-grace -3s: say 0 or more":    {"--stop-grace", "-3s"},
		"--drain-timeout -1s: say 0 or more": {"--drain-timeout", "-1s"},
	} {
		require.Contains(t, serveMisused(t, append(sound, args...)...), want)
	}
}

// TestServeTwice starts a second codeserver beside one that serves: on its state, and on its socket.
func TestServeTwice(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	address, _ := h.deploy()
	state := filepath.Join(h.dir, "state")
	require.Contains(t, serveFails(t, "--state", state, "--cache", h.cache(), "--listen", "127.0.0.1:0"), "another codeserver uses "+state)
	require.Contains(t, serveFails(t, "--state", state+"2", "--cache", h.cache(), "--listen", h.socket()), "another server answers on")
	require.Equal(t, "one", h.get(address, "/"))
	st, err := os.Stat(filepath.Join(h.dir, "cs.sock"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
}

// TestServeSetsid kills a codeserver whose version has started a process in a session of its own.
func TestServeSetsid(t *testing.T) {
	project := webProject("one")
	project["web/word.py"] = `import subprocess, sys
WORD = "one"
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
`
	h := newHost(t, project)
	h.start()
	address, _ := h.deploy()
	require.Equal(t, "one", h.get(address, "/"))
	require.GreaterOrEqual(t, len(h.processes()), 3, "the server, the version and what that started")
	h.end(syscall.SIGKILL)
	require.Eventually(t, func() bool { return len(h.processes()) == 0 }, 20*time.Second, 20*time.Millisecond,
		"what has a session of its own ends too: %v", h.processes)
}
