package examples

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// withPage has a host's codeserver serve the page.
func (h *host) withPage(args ...string) (base string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(h.t, err)
	address := l.Addr().String()
	require.NoError(h.t, l.Close())
	h.serve = append(h.serve, append([]string{"--http", address}, args...)...)
	h.start()
	require.Equal(h.t, "http://"+address, h.pageAddress())
	return "http://" + address
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

// pageHost is a host with a project of three locations, with dependencies from the index.
type pageHost struct {
	*host
	stock    string // host:port that the storefront has to reach to start
	listener net.Listener
}

func newPageHost(t *testing.T) *pageHost {
	clients(t)
	h := &pageHost{host: newHost(t, nil), stock: "127.0.0.1:0"}
	h.setStock(true)
	t.Cleanup(func() { _ = h.listener.Close() })
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
env = { HELLO_NAME = "world", STOCK = "`+h.stock+`" }
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
	h.click("click==8.5.0 --hash=sha256:255bc9599cf7748b4b1a446ccc735421bd08a2ae529a8b88597d3de5664ee360\n")
	h.greet("Hello", 0)
	return h
}

// click says which click the project depends on; "" is the one that the example has.
func (h *pageHost) click(line string) {
	b, err := os.ReadFile("asgi-hello/requirements.txt")
	require.NoError(h.t, err)
	if line != "" {
		b = regexp.MustCompile(`(?m)^click==(.*\\\n)*.*\n`).ReplaceAll(b, []byte(line))
	}
	h.write("requirements.txt", string(b))
}

// greet changes the sources: the greeting, and for how many half seconds a version prepares before it is ready.
func (h *pageHost) greet(greeting string, prepare int) {
	h.write("src/hello/greeting.txt", greeting+"\n")
	b, err := os.ReadFile("asgi-hello/src/hello/app.py")
	require.NoError(h.t, err)
	app := strings.Replace(string(b), "GREETING = ", `import time
for i in range(`+strconv.Itoa(prepare)+`):
    print("reading the catalogue, part", i + 1, flush=True)
    time.sleep(0.5)
if os.environ.get("STOCK"):
    import socket
    host, port = os.environ["STOCK"].split(":")
    socket.create_connection((host, int(port)), 20).close()
print("\x1b[32mopen for business\x1b[0m <script>document.title = 'owned'</script>", flush=True)
GREETING = `, 1)
	app = strings.Replace(app, "    return PlainTextResponse(f", "    print(\"greeting\", name, flush=True)\n    return PlainTextResponse(f", 1)
	h.write("src/hello/app.py", app)
}

// setStock has something listen where a version of the storefront looks when it starts, or nothing.
func (h *pageHost) setStock(there bool) {
	if !there {
		require.NoError(h.t, h.listener.Close())
		return
	}
	l, err := net.Listen("tcp", h.stock)
	require.NoError(h.t, err)
	h.stock, h.listener = l.Addr().String(), l
}

// locationOf returns what status says of a location.
func (h *pageHost) locationOf(name string) (address, current string) {
	e := find(h.events("status"), "location", "name", name)
	require.NotNil(h.t, e)
	return e["address"].(string), e["current"].(string)
}

// visit asks a location now and then, as visitors do, until the returned function is called.
func visit(t *testing.T, address string, pause time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			if resp, err := http.Get("http://" + address + "/?name=visitor" + strconv.Itoa(i)); err == nil {
				resp.Body.Close()
			}
			time.Sleep(pause * time.Duration(1+i/40%3))
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// TestPage clicks through the page in a real browser: deploys that happen while it is open, what they changed, a log, a
// rollback, and what fails.
func TestPage(t *testing.T) {
	h := newPageHost(t)
	b := newBrowser(t, h.withPage())
	b.open("/")
	b.reads("main", "Nothing is served here yet", "pexpress deploy")
	b.fits("an empty page")

	// The first deploys appear by themselves.
	h.run("deploy")
	b.reads("main", "3 locations", "all serving", "storefront", "reports", "worker", "256 MiB")
	address, first := h.locationOf("storefront")
	require.Equal(t, "Hello, world!", h.get(address, "/"))
	b.click(`a[href="#/location/storefront"]`)
	b.reads("h1", "storefront")
	b.reads(compareSection, "There is one version yet")
	if os.Getenv("PEXPRESS_SCREENSHOTS") != "" {
		reports, _ := h.locationOf("reports")
		t.Cleanup(visit(t, address, 40*time.Millisecond))
		t.Cleanup(visit(t, reports, 200*time.Millisecond))
		time.Sleep(90 * time.Second)
	}
	b.deployWatched(h)
	_, second := h.locationOf("storefront")
	require.NotEqual(t, first, second)
	b.reads(compareSection, "click 8.5.0 → 8.5.1", "src/hello/greeting.txt", "7 B (+1 B)", "env GREETER", "set")
	b.reads(stepsSection, "load deps", "load source", "environment", "ready", "switch", "in all", "fetched")
	require.Eventually(t, func() bool { // what is above may still change its height
		b.pointAt(".chart.memory svg")
		return strings.Contains(b.text(".chart.memory .now"), " · ")
	}, patience, 200*time.Millisecond, "the chart says what it was under the pointer")
	b.followLog(h, address)
	b.rollBack(h, address, first, second)
	b.failures(h, address)
	require.NotEqual(t, "owned", eval[string](b, "document.title"), "what a version writes does not run")
	b.fine()
	b.restart(h, address, first)
	b.fine("net::ERR_")
}

const (
	compareSection = "section[aria-labelledby=compare]"
	stepsSection   = "section[aria-labelledby=steps]"
	mainButton     = ".head button.main"
)

// deployWatched deploys a version that takes a while, which the page shows while it does.
func (b *browser) deployWatched(h *pageHost) {
	h.greet("Servus", 6)
	h.click("")
	project, err := os.ReadFile(filepath.Join(h.project, "pyproject.toml"))
	require.NoError(b.t, err)
	h.write("pyproject.toml", strings.Replace(string(project), "HELLO_NAME", `GREETER = "new", HELLO_NAME`, 1))
	deployed := make(chan struct{})
	go func() {
		defer close(deployed)
		h.run("deploy", "storefront")
	}()
	b.reads("main", "A deploy is under way", "serves until it is ready", "next step")
	b.reads(stepsSection, "load source")
	<-deployed
	b.lacks("main", "A deploy is under way")
}

// followLog reads a log while it is written, pauses, and goes on.
func (b *browser) followLog(h *pageHost, address string) {
	b.reads(".log", "reading the catalogue, part 6", "open for business <script>document.title = 'owned'</script>")
	require.NotContains(b.t, b.text(".log"), "[32m", "colours of a terminal are left out")
	h.get(address, "/?name=Ada")
	b.reads(".log", "greeting Ada")
	b.click("button[data-do=pause]")
	h.get(address, "/?name=Grace")
	b.reads(".log-foot", "since it was paused")
	require.NotContains(b.t, b.text(".log"), "greeting Grace")
	b.click("button[data-do=pause]")
	b.reads(".log", "greeting Ada", "greeting Grace")

	// The log of the version before is kept.
	before := eval[string](b, "document.querySelector('#log-version').options[2].value")
	b.choose("#log-version", before)
	b.reads(".log-foot", "This version has ended")
	b.lacks(".log", "greeting Grace")
	b.choose("#log-version", "")
	b.reads(".log", "greeting Grace")
	b.screenshots("location", map[string]int64{"desktop": 2600, "phone": 2600})
	b.open("/")
	b.reads("main", "3 locations")
	b.screenshots("overview", map[string]int64{"desktop": 640, "phone": 1500})
	b.open("/#/location/storefront")
}

// rollBack rolls back to a version that cannot start, then to the same when it can.
func (b *browser) rollBack(h *pageHost, address, first, second string) {
	t := b.t
	h.setStock(false)
	b.reads(mainButton, "Roll back to "+first[:12])
	b.click(mainButton)
	b.reads("dialog", "Roll back storefront", "will run", first[:12], "instead of", second[:12], "1 wheel")
	b.screenshots("rollback", map[string]int64{"desktop": 900, "phone": 844})
	b.click("dialog .actions button:first-child")
	require.Equal(t, "Servus, world!", h.get(address, "/"), "nothing happens before it is confirmed")

	b.click(mainButton)
	b.click("dialog button.main")
	b.reads("dialog", "The rollback failed; what served before goes on.", "ConnectionRefusedError")
	require.Equal(t, "Servus, world!", h.get(address, "/"))
	h.setStock(true)
	b.click("dialog button.main")
	b.reads("dialog", "storefront serves "+first[:12], "ready", "switch")
	require.Equal(t, "Hello, world!", h.get(address, "/"))
	b.click("dialog .actions button:first-child")
	b.reads(mainButton, "Roll back to "+second[:12])
	b.reads(".figures", first[:8])
	require.NotContains(t, b.text("main"), "The last deploy failed")

	// From the keyboard, from the list of versions, which is drawn anew again and again meanwhile.
	b.run(chromedp.Focus(chromedp.CSS("td.acts button")))
	time.Sleep(2 * time.Second)
	b.run(chromedp.KeyEvent("\r"))
	b.reads("dialog", second[:12])
	require.Equal(t, "Cancel", eval[string](b, "document.activeElement.textContent"), "what does no harm has the focus")
	b.run(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent("\r"))
	b.reads("dialog", "storefront serves "+second[:12])
	b.run(chromedp.KeyEvent(kb.Escape))
	require.Equal(t, "Servus, world!", h.get(address, "/"))
}

// restart starts the codeserver anew under the page, which then does what it did before.
func (b *browser) restart(h *pageHost, address, version string) {
	b.open("/#/location/storefront")
	b.reads(".figures", "Serves")
	h.stop()
	b.reads("#live", "no answer from the codeserver")
	h.start()
	b.reads("#live", "live")
	b.reads("main", "serving", "Roll back to "+version[:12])
	b.click(mainButton)
	b.click("dialog button.main")
	b.reads("dialog", "storefront serves "+version[:12])
	require.Equal(b.t, "Hello, world!", h.get(address, "/"))
}

// failures deploys what does not start.
func (b *browser) failures(h *pageHost, address string) {
	h.write("src/hello/app.py", "raise RuntimeError('no good <img src=x onerror=alert(1)>')\n")
	r, err := h.try("deploy", "storefront")
	require.Error(b.t, err, r.stdout)
	b.reads(".notice", "The last deploy failed", "just now")
	b.click(".notice summary")
	b.reads(".notice", "RuntimeError: no good <img src=x onerror=alert(1)>", "load source")
	require.Equal(b.t, "Servus, world!", h.get(address, "/"))
	b.screenshots("failure", map[string]int64{"desktop": 900, "phone": 900})
	b.open("/")
	b.reads("main", "last deploy failed")
	h.run("remove", "worker")
	b.reads("main", "2 locations")
	b.lacks("main", "worker")
	b.open("/#/location/worker")
	b.reads("main", "There is no location worker")
}
