package examples

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// clients returns the directory of a virtual environment with real clients, or skips the test.
func clients(t *testing.T) string {
	dir := os.Getenv("PEXPRESS_TEST_CLIENTS")
	if dir == "" {
		t.Skip("needs real clients: run make test-clients")
	}
	return dir
}

// quickstart makes a host with a copy of the Dagster example and an index configuration that is the tester's own.
func quickstart(t *testing.T, serve ...string) *host {
	h := newHost(t, nil)
	h.serve = serve
	require.NoError(t, os.CopyFS(h.project, os.DirFS("dagster-quickstart")))
	h.run("lock", "requirements.txt")
	h.start()
	return h
}

// sameUser has versions write to the webserver's Dagster instance, a directory with database files.
var sameUser = []string{"--users", "none"}

// edit replaces a word in the example's assets.
func (h *host) edit(from, to string) {
	path := filepath.Join(h.project, "quickstart/assets.py")
	b, err := os.ReadFile(path)
	require.NoError(h.t, err)
	require.Contains(h.t, string(b), from)
	require.NoError(h.t, os.WriteFile(path, bytes.ReplaceAll(b, []byte(from), []byte(to)), 0o644))
}

// driver is testdata/drive.py on a code server.
type driver struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Scanner
}

func drive(t *testing.T, address string) *driver {
	d := &driver{t: t, cmd: exec.Command(filepath.Join(clients(t), "bin/python"), "testdata/drive.py", address)}
	stdin, err := d.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := d.cmd.StdoutPipe()
	require.NoError(t, err)
	d.stdin, d.out = stdin, bufio.NewScanner(out)
	d.out.Buffer(nil, 1<<20)
	d.cmd.Stderr = os.Stderr
	require.NoError(t, d.cmd.Start())
	t.Cleanup(func() { _ = d.cmd.Process.Kill() })
	return d
}

func (d *driver) read(v any) {
	require.True(d.t, d.out.Scan(), "the client ended: %v", d.out.Err())
	require.NoError(d.t, json.Unmarshal(d.out.Bytes(), v), "%s", d.out.Text())
}

// ask has the client ask a question.
func (d *driver) ask(question string, answer any) {
	_, err := fmt.Fprintln(d.stdin, question)
	require.NoError(d.t, err)
	d.read(answer)
}

func (d *driver) assets() (assets map[string]string) {
	d.ask("assets", &assets)
	return assets
}

// end stops the pings and returns their count and the failures.
func (d *driver) end() (pings int, failures []string) {
	require.NoError(d.t, d.stdin.Close())
	var c struct {
		Pings  int
		Errors []string
	}
	d.read(&c)
	require.NoError(d.t, d.cmd.Wait())
	return c.Pings, c.Errors
}

// TestDagster has Dagster's own client hold one connection at 200 pings a second while the example is edited and
// deployed: no ping fails, and the same connection sees the new definition, but not one that does not load.
func TestDagster(t *testing.T) {
	clients(t)
	h := quickstart(t)
	address, _ := h.deploy()
	d := drive(t, address)
	before := d.assets()
	require.Contains(t, before, "orders")
	old := before["orders_per_customer"]
	require.NotEmpty(t, old)
	for i := range 3 {
		next := fmt.Sprintf("%s %d", strings.TrimRight(old, "."), i)
		h.edit(old, next)
		_, events := h.deploy()
		require.Equal(t, true, find(events, "built", "output", "deps.pex")["hit"])
		require.Equal(t, next, d.assets()["orders_per_customer"])
		old = next
		t.Log("definitions computed in", find(events, "stage", "stage", "definitions")["milliseconds"], "ms")
	}
	// Dagster's server starts with it, and no webserver could load it.
	h.edit("@dg.asset_check(", "@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(partition_fn=lambda _: []))\ndef odd(): ...\n\n\n@dg.asset_check(")
	r, err := h.try("deploy")
	require.Error(t, err)
	require.Equal(t, 5, r.code, r.stderr)
	require.Contains(t, r.stderr, "does not support dynamic partitions definitions without a name")
	require.Equal(t, old, d.assets()["orders_per_customer"], "the old version goes on")
	pings, failures := d.end()
	require.Empty(t, failures)
	t.Logf("%d pings over 3 switches, none failed", pings)
}

// TestWebserver has a real dagster-webserver list the assets through workspace.yaml and launch a run that
// materialises one.
func TestWebserver(t *testing.T) {
	bin := filepath.Join(clients(t), "bin")
	h := quickstart(t, sameUser...)
	address, _ := h.deploy()
	g := h.webserver(bin, address)
	g.require(`{assetNodes{assetKey{path} repository{name location{name}}}}`, `"orders_per_customer"`)
	const launch = `mutation{launchPipelineExecution(executionParams:{mode:"default",runConfigData:{},selector:{
		repositoryLocationName:"quickstart",repositoryName:"__repository__",pipelineName:"__ASSET_JOB",
		assetSelection:[{path:["orders"]}]}}){__typename ... on LaunchRunSuccess{run{runId}}
		... on PythonError{message stack}}}`
	g.require(launch, `"LaunchRunSuccess"`)
	require.Eventually(t, func() bool {
		body := g.query(`{runsOrError{... on Runs{results{status}}}}`)
		require.NotContains(t, body, `"FAILURE"`)
		return strings.Contains(body, `"SUCCESS"`)
	}, 90*time.Second, 250*time.Millisecond)
	g.require(`{assetNodes{assetKey{path} assetMaterializations(limit:1){runId}}}`, `"runId"`)
}

// graphql is a running dagster-webserver.
type graphql struct {
	t   *testing.T
	url string
}

// dagsterYAML has runs start at once: without it they wait for a daemon.
const dagsterYAML = `telemetry:
  enabled: false
run_coordinator:
  module: dagster._core.run_coordinator
  class: DefaultRunCoordinator
`

// instance makes a Dagster instance whose workspace is the code server at address.
func (h *host) instance(address string) (home, workspace string) {
	hostname, port, err := net.SplitHostPort(address)
	require.NoError(h.t, err)
	home, workspace = filepath.Join(h.dir, "dagster"), filepath.Join(h.dir, "workspace.yaml")
	require.NoError(h.t, os.MkdirAll(home, 0o755))
	require.NoError(h.t, os.WriteFile(filepath.Join(home, "dagster.yaml"), []byte(dagsterYAML), 0o644))
	require.NoError(h.t, os.WriteFile(workspace, []byte(fmt.Sprintf(
		"load_from:\n  - grpc_server:\n      host: %s\n      port: %s\n      location_name: quickstart\n", hostname, port)), 0o644))
	return home, workspace
}

// dagster starts one of Dagster's programs on the instance; it ends with the test.
func (h *host) dagster(home, program string, args ...string) {
	cmd := exec.Command(program, args...)
	// Ticks that a test holds take as long as its deploys, and a tick that its client has given up counts as failed.
	cmd.Env = append(os.Environ(), "DAGSTER_HOME="+home, "DAGSTER_GRPC_TIMEOUT_SECONDS=600")
	log, err := os.Create(filepath.Join(h.dir, filepath.Base(program)+".log"))
	require.NoError(h.t, err)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(h.t, cmd.Start())
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		log.Close()
	})
}

// webserver starts dagster-webserver on the code server at address and waits until it answers.
func (h *host) webserver(bin, address string) *graphql {
	home, workspace := h.instance(address)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(h.t, err)
	own := l.Addr().String()
	l.Close()
	_, ownPort, _ := net.SplitHostPort(own)
	h.dagster(home, filepath.Join(bin, "dagster-webserver"), "-w", workspace, "-h", "127.0.0.1", "-p", ownPort)
	g := &graphql{h.t, "http://" + own}
	require.Eventually(h.t, func() bool {
		resp, err := http.Get(g.url + "/server_info")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	}, 60*time.Second, 200*time.Millisecond)
	return g
}

func (g *graphql) query(q string) string {
	body, err := json.Marshal(map[string]string{"query": q})
	require.NoError(g.t, err)
	resp, err := http.Post(g.url+"/graphql", "application/json", bytes.NewReader(body))
	require.NoError(g.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(g.t, err)
	return string(b)
}

func (g *graphql) require(q, contains string) {
	require.Contains(g.t, g.query(q), contains)
}
