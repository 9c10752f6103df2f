package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// withPage has a host's codeserver serve the page.
func (h *host) withPage(args ...string) (base string) {
	h.serve = append(h.serve, append([]string{"--http", "127.0.0.1:0"}, args...)...)
	h.start()
	return h.pageAddress()
}

func (h *host) pageAddress() (base string) {
	require.Eventually(h.t, func() bool {
		b, err := os.ReadFile(filepath.Join(h.dir, "codeserver.log"))
		require.NoError(h.t, err)
		if m := regexp.MustCompile(`serving the page" address=(\S+)/`).FindSubmatch(b); m != nil {
			base = string(m[1])
		}
		return base != ""
	}, patience, 20*time.Millisecond)
	return base
}

// pageProject is a project of three locations, with dependencies from the index.
func pageProject(t *testing.T) *host {
	clients(t)
	h := newHost(t, nil)
	require.NoError(t, os.CopyFS(h.project, os.DirFS("asgi-hello")))
	h.write("pyproject.toml", `[project]
name = "shop"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["starlette", "uvicorn"]
[tool.pexpress]
python = "3.11"
[tool.pexpress.location.storefront]
preset = "asgi"
app = "hello.app:app"
env = { HELLO_NAME = "world", FLAG = "`+filepath.Join(h.dir, "flag")+`" }
readiness = { http-path = "/healthz" }
limits = { memory = "256MiB", cpu = 1.5, open-files = 512 }
[tool.pexpress.location.reports]
preset = "asgi"
app = "hello.app:app"
readiness = { http-path = "/healthz" }
[tool.pexpress.location.worker]
preset = "asgi"
app = "hello.app:app"
readiness = { http-path = "/healthz" }
limits = { memory = "128MiB", pids = 64 }
`)
	h.greet("Hello", 0)
	require.NoError(t, os.WriteFile(filepath.Join(h.dir, "flag"), nil, 0o644))
	return h
}

// greet changes the sources: the greeting, and for how long a version prepares before it is ready.
func (h *host) greet(greeting string, prepare int) {
	h.write("src/hello/greeting.txt", greeting+"\n")
	b, err := os.ReadFile("asgi-hello/src/hello/app.py")
	require.NoError(h.t, err)
	const begin = "GREETING = "
	h.write("src/hello/app.py", strings.Replace(string(b), begin, `import time
for i in range(`+strconv.Itoa(prepare)+`):
    print("preparing, step", i, flush=True)
    time.sleep(0.5)
if os.environ.get("FLAG"):
    open(os.environ["FLAG"]).close()
print("\x1b[32mopen for business\x1b[0m <script>alert(1)</script>", flush=True)
`+begin, 1))
}

// TestPage clicks through the page in a real browser: a deploy that happens while it is open, what it changed, its log, a
// rollback, and one that fails.
func TestPage(t *testing.T) {
	h := pageProject(t)
	b := newBrowser(t, h.withPage())
	b.open("/")
	b.reads("main", "Nothing is served here yet", "pexpress deploy")
	b.fits("an empty page")

	// The first deploys appear by themselves.
	h.run("deploy")
	b.reads("main", "storefront", "reports", "worker", "serving")
	address := h.addressOf("storefront")
	require.Contains(t, h.get(address, "/"), "Hello, world")

	b.click(`a[href="#/location/storefront"]`)
	b.reads("h1", "storefront")
	b.reads(".log", "open for business <script>alert(1)</script>")
	b.reads("#compare ~ *, section[aria-labelledby=compare]", "There is one version yet")
	first := eval[string](b, "document.querySelector('.figures code').title")

	// A deploy that takes a while is shown while it does.
	h.greet("Servus", 6)
	deployed := make(chan struct{})
	go func() {
		defer close(deployed)
		h.run("deploy", "storefront")
	}()
	b.reads("main", "A deploy is under way", "serves until it is ready", "next step")
	<-deployed
	b.lacks("main", "A deploy is under way")
	b.reads("section[aria-labelledby=compare]", "src/hello/greeting.txt", "src/hello/app.py", "of source")
	b.reads("section[aria-labelledby=steps]", "load deps", "load source", "ready", "switch", "in all", "fetched")
	b.reads(".log", "preparing, step 5")
	second := eval[string](b, "document.querySelector('.figures code').title")
	require.NotEqual(t, first, second)
	b.fine()
	b.screenshots("location", map[string]int64{"desktop": 3000, "phone": 5000})
	b.open("/")
	b.screenshots("overview", map[string]int64{"desktop": 900, "phone": 1600})
}

// addressOf returns where a location is reached.
func (h *host) addressOf(location string) string {
	e := find(h.events("status"), "location", "name", location)
	require.NotNil(h.t, e)
	return e["address"].(string)
}
