package observe

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/server"
)

// open is a Guard that lets everyone in, and shows all or nothing.
func open(everything bool) Guard {
	return func(http.ResponseWriter, *http.Request) (func(string) bool, bool, bool) {
		return func(family string) bool { return everything || family == "main" }, everything, true
	}
}

func closed(w http.ResponseWriter, _ *http.Request) (func(string) bool, bool, bool) {
	http.Error(w, "no", http.StatusForbidden)
	return nil, false, false
}

func get(t *testing.T, h http.Handler, path string, code int) string {
	t.Helper()
	out := httptest.NewRecorder()
	h.ServeHTTP(out, httptest.NewRequest(http.MethodGet, path, nil))
	require.Equal(t, code, out.Code, out.Body.String())
	return out.Body.String()
}

const hostile = `<img src=x onerror=document.title='owned'>"'&</script>`

// busy is a server that has done something of everything.
func busy(t *testing.T) *world {
	w := newWorld(t)
	require.NoError(t, w.store.UpdateActionResult(t.Context(), of("built"), result))
	for i := range 90 {
		w.history.sample(w.point())
		for j := range 20 + i%7*5 {
			w.lookup("main", []string{"GoCompilePkg", "CppCompile", "Javac", "PyWheel"}[j%4], map[bool]string{true: "built", false: "no"}[j%(3+i%4) > 0])
		}
		w.total.read.Add(int64(i%11) << 20)
		w.total.written.Add(int64(i%5) << 20)
		w.clock.advance(step)
	}
	w.lookup("pr-*", hostile, "no")
	w.lookup("", "Genrule", "built")
	require.NoError(t, w.call("ByteStream/Read", "main", "CppLink", func(context.Context, server.Instance) error {
		w.clock.advance(2300 * time.Millisecond)
		return nil
	}))
	w.tiers = []Tier{
		{Name: "disk", Entries: 812345, Bytes: 41 << 30, MaxBytes: 50 << 30, Hits: 91234, Misses: 4321, Evicted: 1234},
		{Name: "s3", Entries: 4812345, Bytes: 410 << 30, Hits: 30000, Misses: 120, Requests: map[string]int64{"PUT": 1312, "GET": 4321, "LIST": 120, "DELETE": 40}, ViewAge: 4},
	}
	return w
}

func TestStatusPage(t *testing.T) {
	w := busy(t)
	h := w.StatusPage(open(true))
	out := httptest.NewRecorder()
	h.ServeHTTP(out, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, http.StatusOK, out.Code)
	require.Contains(t, out.Body.String(), "<title>pexcache</title>")
	require.NotContains(t, out.Body.String(), "http://www.w3.org/1999", "no other resources")
	for _, outside := range []string{"src=", "@import", "url(", "innerHTML", "insertAdjacent", "document.write", " style="} {
		require.NotContains(t, out.Body.String(), outside)
	}
	require.Contains(t, out.Header().Get("Content-Security-Policy"), "default-src 'none'")

	var s Status
	require.NoError(t, json.Unmarshal([]byte(get(t, h, "/status.json", http.StatusOK)), &s))
	require.Len(t, s.Instances, 3)
	require.NotContains(t, get(t, h, "/status.json", http.StatusOK), "<img", "json escapes what a browser could take for HTML")
	require.Equal(t, "ByteStream/Read", s.Slow[0].Method)
}

func TestGuard(t *testing.T) {
	w := busy(t)
	for _, path := range []string{"/", "/status.json"} {
		get(t, w.StatusPage(closed), path, http.StatusForbidden)
	}
	get(t, w.Metrics(closed), "/metrics", http.StatusForbidden)
	get(t, w.Metrics(open(false)), "/metrics", http.StatusForbidden)
	var s Status
	require.NoError(t, json.Unmarshal([]byte(get(t, w.StatusPage(open(false)), "/status.json", http.StatusOK)), &s))
	require.Len(t, s.Instances, 1, "only what may be read is shown")
	for _, c := range s.Slow {
		require.Equal(t, "main", c.Instance)
	}
}

// TestPageInBrowser has a real browser draw the page.
func TestPageInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium on PATH")
	}
	s := httptest.NewServer(busy(t).StatusPage(open(true)))
	defer s.Close()
	cmd := exec.CommandContext(t.Context(), chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
		"--virtual-time-budget=4000", "--dump-dom", s.URL+"/")
	cmd.WaitDelay = 10 * time.Second
	b, err := cmd.Output()
	require.NoError(t, err)
	dom := string(b)
	for _, want := range []string{"GoCompilePkg", "(default)", "pr-*", "41.0 GiB of 50.0 GiB", "ByteStream/Read", "2.3 s", "<rect", "a month at this rate"} {
		require.Contains(t, dom, want)
	}
	require.Contains(t, dom, "<title>pexcache</title>", "the made-up mnemonic did not run")
	require.Contains(t, dom, "&lt;img src=x onerror=")
	require.NotContains(t, dom, "<img")
	require.NotContains(t, dom, `class="dot stale"`, "the page has its figures")
}
