// Package examples holds projects that show pexpress in use; its tests build and serve them with the real binaries.
package examples

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// bin is the directory of the binaries under test.
var bin string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pexpress-examples")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	bin = dir
	// The tester's own cache and codeserver are not for tests.
	for _, name := range []string{"PEXPRESS_CACHE", "PEXPRESS_CODESERVER", "PEXPRESS_HOME"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	build := exec.Command("go", "build", "-o", dir+"/", "./plugin/cmd/pexpress", "./codeserver/cmd/codeserver")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	return m.Run()
}

// host is a machine with a cache, a codeserver and a checkout.
type host struct {
	t       *testing.T
	dir     string // everything
	project string
	remote  string   // address of the cache; "" is one on the host's own disk
	serve   []string // further arguments of 'codeserver serve'
	program string   // the codeserver; "" is the one under test
	server  *exec.Cmd
	log     *os.File
}

// newHost makes a host with a copy of the project.
func newHost(t *testing.T, project map[string]string) *host {
	h := &host{t: t, dir: t.TempDir()}
	h.project = filepath.Join(h.dir, "project")
	for name, content := range project {
		h.write(name, content)
	}
	return h
}

func (h *host) write(name, content string) {
	path := filepath.Join(h.project, name)
	require.NoError(h.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(h.t, os.WriteFile(path, []byte(content), 0o644))
}

func (h *host) env() []string {
	env := os.Environ()
	if h.remote != "" {
		env = append(env, "PEXPRESS_CACHE="+h.remote)
	}
	return append(env, "PEXPRESS_HOME="+filepath.Join(h.dir, "home"), "PEXPRESS_CODESERVER="+h.socket())
}

func (h *host) socket() string { return "unix://" + filepath.Join(h.dir, "cs.sock") }

func (h *host) cache() string {
	if h.remote != "" {
		return h.remote
	}
	return filepath.Join(h.dir, "home", "cache")
}

// start starts the codeserver and waits until it answers.
func (h *host) start() {
	log, err := os.OpenFile(filepath.Join(h.dir, "codeserver.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(h.t, err)
	h.log = log
	h.server = exec.Command(cmp.Or(h.program, filepath.Join(bin, "codeserver")), append([]string{
		"serve", "--state", filepath.Join(h.dir, "state"),
		"--cache", h.cache(), "--listen", h.socket(),
	}, h.serve...)...)
	h.server.Stdout, h.server.Stderr = log, log
	require.NoError(h.t, h.server.Start())
	h.t.Cleanup(h.stop)
	for range 200 {
		if _, err := h.try("status"); err == nil {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	b, _ := os.ReadFile(log.Name())
	require.Fail(h.t, "the codeserver does not answer", "%s", b)
}

func (h *host) stop() { h.end(syscall.SIGTERM) }

func (h *host) end(sig syscall.Signal) {
	if h.server == nil {
		return
	}
	_ = h.server.Process.Signal(sig)
	_ = h.server.Wait()
	h.server = nil
	h.log.Close()
}

// result is what a command said.
type result struct {
	stdout, stderr string
	code           int
}

// try runs pexpress in the project.
func (h *host) try(args ...string) (result, error) {
	cmd := exec.Command(filepath.Join(bin, "pexpress"), args...)
	cmd.Dir = h.project
	cmd.Env = h.env()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}, err
}

// run runs pexpress, which must succeed.
func (h *host) run(args ...string) result {
	r, err := h.try(args...)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(h.dir, "codeserver.log"))
		require.NoError(h.t, err, "%s\n%s\n%s\n%s", strings.Join(args, " "), r.stdout, r.stderr, log)
	}
	return r
}

// events returns the JSON events of a command that must succeed.
func (h *host) events(args ...string) []map[string]any {
	r := h.run(append(args, "--output", "json")...)
	var events []map[string]any
	for _, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		var e map[string]any
		require.NoError(h.t, json.Unmarshal([]byte(line), &e), "%s", line)
		events = append(events, e)
	}
	return events
}

// find returns the first event of a kind in which key has the value.
func find(events []map[string]any, kind, key, value string) map[string]any {
	for _, e := range events {
		if e["event"] == kind && (key == "" || e[key] == value) {
			return e
		}
	}
	return nil
}

// deploy deploys and returns the address that serves.
func (h *host) deploy() (address string, events []map[string]any) {
	events = h.events("deploy", "--ready-timeout", "5m") // the first start of much code, on a machine that is busy
	d := find(events, "deployed", "", "")
	require.NotNil(h.t, d)
	return d["address"].(string), events
}

// get returns the body of an HTTP answer with status 200.
func (h *host) get(address, path string) string {
	client := http.Client{Timeout: 5 * time.Minute} // the slowest is what packages do
	resp, err := client.Get(fmt.Sprintf("http://%s%s", address, path))
	require.NoError(h.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(h.t, err)
	require.Equal(h.t, http.StatusOK, resp.StatusCode, "%s", b)
	return strings.TrimSpace(string(b))
}
