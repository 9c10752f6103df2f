package examples

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// neighbour is a service with Dagster's and pandas' modules in its memory. It tells its secret, and misbehaves when asked to.
const neighbour = `import http.server, os, subprocess, sys, threading
import dagster, pandas
FRAME = pandas.DataFrame({"n": range(100)})
def eat():
    kept = []
    while True:
        kept.append(b"x" * (1 << 20))
def forks():
    while True:
        try:
            if os.fork() == 0:
                threading.Event().wait()
        except OSError:
            pass
def spins():
    for _ in range(4):
        subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
def fills():
    while True:
        with open("/tmp/full", "wb") as f:
            try:
                while True:
                    f.write(b"x" * (1 << 20))
            except OSError:
                pass
def floods():
    line = b"x" * 200 + b"\n"
    while True:
        os.write(1, line * 100)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        what = globals().get(self.path[1:])
        if what:
            threading.Thread(target=what, daemon=True).start()
        body = (os.environ["TOKEN"] + " " + str(FRAME.n.sum())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`

const (
	neighbours = 20
	// loadRate is how many requests a second the well-behaved ones get together, for loadTime in each case.
	loadRate = 100
	loadTime = 30 * time.Second
)

// neighbourhood deploys locations on the same dependencies, each with a secret of its own, and returns their addresses.
func neighbourhood(t *testing.T) (h *host, alone int64, addresses []string) {
	h = newHost(t, nil)
	config, secrets := `python = "3.11"`+"\n", ""
	for i := range neighbours + 1 {
		name := fmt.Sprintf("n%02d", i)
		value := filepath.Join(h.dir, name+".secret")
		require.NoError(t, os.WriteFile(value, []byte("secret of "+name), 0o600))
		secrets += fmt.Sprintf("[location.%s]\nTOKEN = { file = %q }\n", name, value)
		config += fmt.Sprintf("[location.%s]\npreset = \"module\"\nmodule = \"neighbour\"\nsecret-env = [\"TOKEN\"]\n"+
			"limits = { memory = \"400MiB\", cpu = 0.5, pids = 100, tmp = \"64MiB\" }\n", name)
		if i == neighbours {
			config += "warm = false\n" // what a process by itself takes
		}
	}
	file := filepath.Join(h.dir, "secrets.toml")
	require.NoError(t, os.WriteFile(file, []byte(secrets), 0o600))
	h.write("pexpress.toml", config)
	h.write("neighbour.py", neighbour)
	requirements, err := os.ReadFile("dagster-quickstart/requirements.txt")
	require.NoError(t, err)
	h.write("requirements.txt", string(requirements))
	h.run("lock", "requirements.txt")
	h.serve = []string{"--secrets", file}
	h.start()
	deploy := func(names ...string) {
		for _, e := range h.events(append([]string{"deploy"}, names...)...) {
			if e["event"] == "deployed" {
				addresses = append(addresses, e["address"].(string))
			}
		}
	}
	deploy(fmt.Sprintf("n%02d", neighbours))
	alone = h.pss()
	h.run("remove", fmt.Sprintf("n%02d", neighbours))
	addresses = nil
	require.Eventually(t, func() bool { return h.pss() == 0 }, time.Minute, 100*time.Millisecond)
	for i := range neighbours {
		deploy(fmt.Sprintf("n%02d", i))
		if i == 0 {
			h.awaitZygote()
		}
		if i == 1 || i == neighbours-1 {
			t.Logf("%d locations: %.1f MiB, all processes together", i+1, mebibytes(h.pss()))
		}
	}
	require.Len(t, addresses, neighbours)
	return h, alone, addresses
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// inside returns what runs as a user of a location, or of a zygote.
func (h *host) inside() map[string]string {
	found := map[string]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		status, _ := os.ReadFile(filepath.Join(dir, "status"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		_, rest, ok := strings.Cut(string(status), "\nUid:\t")
		if user, _, _ := strings.Cut(rest, "\t"); ok && user > "60705" && user < "61184" && len(user) == 5 && strings.Contains(string(environ), h.dir) {
			cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			found[filepath.Base(dir)] = strings.ReplaceAll(string(cmdline), "\x00", " ")
		}
	}
	return found
}

func (h *host) awaitZygote() {
	require.Eventually(h.t, func() bool {
		for _, command := range h.inside() {
			if strings.Contains(command, ".py serve") {
				return true // the next version waits until it is made
			}
		}
		return false
	}, 2*time.Minute, 100*time.Millisecond)
}

// pss returns the bytes of memory of all processes of locations and zygotes.
func (h *host) pss() (sum int64) {
	for pid := range h.inside() {
		b, _ := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
				n, err := strconv.ParseInt(f[1], 10, 64)
				require.NoError(h.t, err)
				sum += n << 10
			}
		}
	}
	return sum
}

// p99 sends requests to some locations, begun at a steady rate, and returns within what time all but one percent were
// answered.
func p99(t *testing.T, addresses []string) time.Duration {
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / loadRate)
	defer tick.Stop()
	for i := range int(loadTime.Seconds()) * loadRate {
		<-tick.C
		n := i % len(addresses)
		wg.Go(func() {
			begin := time.Now()
			resp, err := http.Get("http://" + addresses[n] + "/")
			d := time.Since(begin)
			if err == nil {
				resp.Body.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("a location that did nothing fails: %v %v", resp, err)
			}
			took = append(took, d)
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took[len(took)*99/100].Round(10 * time.Microsecond)
}

// TestSoakNeighbours has twenty locations share their dependencies' memory, and one of them misbehave in each way: the
// others answer all that they are asked. How late they do is for people to read: no test asserts a time.
func TestSoakNeighbours(t *testing.T) {
	clients(t)
	if os.Getenv("PEXPRESS_SOAK") == "" {
		t.Skip("set PEXPRESS_SOAK=1 for twenty locations under load")
	}
	if os.Getuid() != 0 {
		t.Skip("locations have users of their own where the codeserver is root")
	}
	h, alone, addresses := neighbourhood(t)
	all := h.pss()
	zygote := int64(0)
	for pid, command := range h.inside() {
		if strings.Contains(command, ".py serve") {
			b, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
			require.NoError(t, err)
			_, rest, _ := strings.Cut(string(b), "\nPss:")
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			zygote += n << 10
		}
	}
	growth := float64(all-alone) / float64(neighbours-1) / float64(alone)
	t.Logf("by itself %.1f MiB; %d locations and their zygote %.1f MiB (%.1f of it the zygote's share): %.1f %% of a process by itself for each",
		mebibytes(alone), neighbours, mebibytes(all), mebibytes(zygote), 100*growth)
	require.LessOrEqual(t, growth, 0.2)
	for i, address := range addresses {
		require.Contains(t, h.get(address, "/"), fmt.Sprintf("secret of n%02d ", i))
	}
	bad, good := addresses[0], addresses[1:]
	for _, what := range []string{"eat", "forks", "spins", "fills", "floods"} {
		before := p99(t, good)
		resp, err := http.Get("http://" + bad + "/" + what)
		require.NoError(t, err)
		resp.Body.Close()
		during := p99(t, good)
		h.run("remove", "n00")
		after := p99(t, good)
		ratio := float64(during) / float64(before) // after tells whether the machine has done something else meanwhile
		t.Logf("one %s: p99 of the others %v, before %v, after %v: %.2f times", what, during, before, after, ratio)
		bad = find(h.events("deploy", "n00"), "deployed", "", "")["address"].(string)
	}
}
