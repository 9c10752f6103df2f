package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache/remote"
)

// TestMain runs in the commands, too, which are this program by another name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "pexcache" {
		forgetEnvironment()
	}
	testscript.Main(m, map[string]func(){"pexcache": main})
}

// forgetEnvironment drops variables that are the tester's own, and not for tests.
func forgetEnvironment() {
	for _, name := range []string{"PEXPRESS_CACHE_TOKEN", "NOTIFY_SOCKET", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": cmdFails,
		},
	})
}

// cmdFails runs a program that must end with an exit status: fails STATUS PROGRAM [ARGUMENT...].
func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails STATUS PROGRAM [ARGUMENT...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("want exit status %s, got %v", args[0], err)
	}
	if got := fmt.Sprint(exit.ExitCode()); got != args[0] {
		ts.Fatalf("want exit status %s, got %s", args[0], got)
	}
}

// process is a running 'pexcache serve'.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	grpc string // addresses
	http string
	mu   sync.Mutex
	log  bytes.Buffer
	done chan struct{}
	err  error
}

// start runs 'pexcache serve' on free ports until the test ends, and returns when it serves.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, done: make(chan struct{})}
	// The commands of testscript.Main are on PATH.
	p.cmd = exec.Command("pexcache", append([]string{"serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"}, args...)...)
	p.cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=access", "AWS_SECRET_ACCESS_KEY=secret", "AWS_REGION=us-east-1")
	out, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	ready := make(chan struct{})
	go p.read(out, ready)
	t.Cleanup(func() { p.stop(syscall.SIGKILL) })
	select {
	case <-ready:
	case <-p.done:
		t.Fatalf("pexcache ended: %v\n%s", p.err, p.said())
	}
	return p
}

// read follows the log until the process ends.
func (p *process) read(out io.Reader, ready chan struct{}) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		p.mu.Lock()
		fmt.Fprintln(&p.log, lines.Text())
		p.mu.Unlock()
		var line struct{ Msg, Address string }
		_ = json.Unmarshal(lines.Bytes(), &line) // what is no JSON has no address
		switch line.Msg {
		case "serving gRPC":
			p.grpc = line.Address
		case "serving HTTP":
			p.http = line.Address
			close(ready)
		}
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// stop sends a signal and waits for the end.
func (p *process) stop(s os.Signal) error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	require.NoError(p.t, p.cmd.Process.Signal(s))
	<-p.done
	return p.err
}

// dial returns a client of an instance, ended with the test.
func (p *process) dial(instance string, opts ...grpc.DialOption) *remote.Cache {
	p.t.Helper()
	c, err := remote.Dial(p.t.Context(), "grpc://"+p.grpc+"/"+instance, opts...)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { c.Close() })
	return c
}

// ask makes an HTTP request, and returns the status and the body.
func (p *process) ask(method, path, token string, body io.Reader) (int, string) {
	p.t.Helper()
	return ask(p.t, http.DefaultClient, method, "http://"+p.http+path, token, body)
}

func ask(t *testing.T, c *http.Client, method, url, token string, body io.Reader) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

// tool runs another pexcache command, and returns what it prints.
func tool(t *testing.T, args ...string) (stdout string, status int) {
	t.Helper()
	cmd := exec.Command("pexcache", args...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=access", "AWS_SECRET_ACCESS_KEY=secret", "AWS_REGION=us-east-1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil {
		require.ErrorAs(t, err, &exit)
	}
	if exit != nil {
		t.Logf("pexcache %s: %s", strings.Join(args, " "), errs.String())
		return out.String() + errs.String(), exit.ExitCode()
	}
	return out.String(), 0
}

// bearer is a client's token.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: the tests are on loopback.
func (bearer) RequireTransportSecurity() bool { return false }

// patience is for what another process does.
const patience = 30 * time.Second

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}
