package examples

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// soakProject has two locations, a server of Python's http.server and one of grpcio. Each answers with its version: the one
// that it has imported.
func soakProject(t *testing.T) map[string]string {
	return map[string]string{
		"pyproject.toml": "[project]\nname = \"soak\"\nversion = \"1.0\"\n[tool.pexpress]\npython = \"3.11\"\n" +
			"[tool.pexpress.location.web]\npreset = \"module\"\nmodule = \"web\"\n" +
			"[tool.pexpress.location.rpc]\npreset = \"module\"\nmodule = \"rpc\"\n",
		"requirements.txt": pinned(t, "grpcio", "typing-extensions"),
		"both/__init__.py": "",
		"both/version.py":  "VERSION = \"000000\"\n",
		"web/__init__.py":  "",
		"web/__main__.py":  soakWeb,
		"rpc/__init__.py":  "",
		"rpc/__main__.py":  soakRPC,
	}
}

const soakWeb = `import http.server, os, time
from both.version import VERSION
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        if self.path != "/stream":
            return self.say(VERSION)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(10):
            self.wfile.write(b"7\r\n" + VERSION.encode() + b"\n\r\n")
            time.sleep(0.1)
        self.wfile.write(b"0\r\n\r\n")
    def do_POST(self):
        self.say(VERSION + " " + self.rfile.read(int(self.headers["Content-Length"])).decode())
    def say(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`

const soakRPC = `import os
from concurrent import futures
import grpc
from both.version import VERSION
def say(message): return VERSION.encode() + b" " + message
class Service(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == "/soak.Soak/Unary":
            return grpc.unary_unary_rpc_method_handler(lambda message, _: say(message))
        return grpc.stream_stream_rpc_method_handler(lambda messages, _: map(say, messages))
server = grpc.server(futures.ThreadPoolExecutor(max_workers=256), handlers=[Service()])
server.add_insecure_port("127.0.0.1:" + os.environ["PORT"])
server.start()
server.wait_for_termination()
`

// pinned returns the Dagster example's requirements of these projects, with their hashes.
func pinned(t *testing.T, projects ...string) string {
	b, err := os.ReadFile("dagster-quickstart/requirements.txt")
	require.NoError(t, err)
	found := ""
	for _, p := range projects {
		block := regexp.MustCompile(`(?m)^` + p + `==.*\n(    --hash.*\n)*`).FindString(string(b))
		require.NotEmpty(t, block, p)
		found += block
	}
	return found
}

// TestSoakSwitches switches a location of HTTP and one of gRPC, both at once, under 300 requests a second each, streams
// among them, of clients in Go and Python. No request may fail, each answer is of a version that was current when its
// request began, and when all is over nothing is left but what there was before. PEXPRESS_SOAK=1 has it switch 1,000 times.
func TestSoakSwitches(t *testing.T) {
	python := filepath.Join(clients(t), "bin/python")
	count, seed := 15, uint64(time.Now().UnixNano())
	if os.Getenv("PEXPRESS_SOAK") != "" {
		count = 1000
	}
	t.Logf("%d switches, seed %d", count, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h := newHost(t, soakProject(t))
	h.serve = []string{"--keep", "2"}
	h.run("lock", "requirements.txt")
	h.start()
	s := &soak{host: h, addresses: map[string]string{}}
	// What comes once: versions until no more are kept, modules that are imported at the first request, connections.
	s.deploy(1)
	stop := s.load(random, python)
	for version := 2; version <= 4; version++ {
		s.deploy(version)
	}
	stop()
	before := s.settled(nil)
	s.answers, s.forks = nil, 0
	begin := time.Now()
	stop = s.load(random, python)
	for i := range count {
		s.deploy(5 + i)
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
	}
	took := time.Since(begin)
	stop()
	after := s.settled(&before)

	byKind := map[string]int{}
	versions := map[int]bool{}
	for _, a := range s.answers {
		byKind[a.kind]++
		versions[a.version] = true
	}
	t.Logf("%d switches of two locations in %s, %d of %d versions forked; %d answers of %d versions (%.0f a second): %v",
		count, took.Round(time.Second), s.forks, 2*count, len(s.answers), len(versions), float64(len(s.answers))/took.Seconds(), byKind)
	t.Logf("before %+v", before)
	t.Logf("after  %+v", after)
	require.Empty(t, s.failures)
	require.Empty(t, stale(s.switches, s.answers))
	for _, kind := range soakKinds {
		require.NotZero(t, byKind[kind], kind)
	}
	require.Greater(t, s.forks, count, "versions are forked")
}

// soak is a host under load.
type soak struct {
	*host
	addresses map[string]string // by location
	switches  []interval        // of the deploys, in order
	forks     int
	files     map[string]int64 // of the state directory, before the load

	results
}

// deploy deploys both locations with a version of that number.
func (s *soak) deploy(version int) {
	s.write("both/version.py", fmt.Sprintf("VERSION = \"%06d\"\n", version))
	cmd := exec.Command(filepath.Join(bin, "pexpress"), "deploy", "web", "rpc", "--output", "json")
	cmd.Dir, cmd.Env = s.project, s.env()
	out, err := cmd.StdoutPipe()
	require.NoError(s.t, err)
	sw := interval{version: version, from: time.Now()}
	require.NoError(s.t, cmd.Start())
	var all strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&all, lines.Text())
		var e struct{ Event, Stage, Location, Address string }
		require.NoError(s.t, json.Unmarshal(lines.Bytes(), &e))
		switch {
		case e.Event == "stage" && e.Stage == "fork":
			s.forks++
		case e.Event == "deployed":
			if sw.to.IsZero() {
				sw.to = time.Now() // both locations have switched before the first is told of
			}
			s.addresses[e.Location] = e.Address
		}
	}
	err = cmd.Wait()
	require.NoError(s.t, err, "version %d: %s", version, &all)
	s.switches = append(s.switches, sw)
}
