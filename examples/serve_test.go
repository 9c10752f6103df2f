package examples

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// webProject answers each request with one word, from the standard library alone.
func webProject(word string) map[string]string {
	return map[string]string{
		"pyproject.toml": "[project]\nname = \"web\"\nversion = \"1.0\"\n[tool.pexpress]\npython = \"3.11\"\n" +
			"[tool.pexpress.location.web]\npreset = \"module\"\nmodule = \"web\"\n",
		"pylock.toml":     "lock-version = \"1.0\"\ncreated-by = \"test\"\nrequires-python = \">=3.11\"\npackages = []\n",
		"web/word.py":     "WORD = \"" + word + "\"\n",
		"web/__init__.py": "",
		"web/data.txt":    "data\n",
		"web/__main__.py": `import http.server, os, pathlib
from web.word import WORD
DATA = pathlib.Path("web/data.txt").read_text()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (WORD if self.path == "/" else DATA).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
print("serving", WORD, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`,
	}
}

// TestServe follows one location through deploys, a switch under load, a broken version, rollback and restarts.
func TestServe(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	address, _ := h.deploy()
	require.Equal(t, "one", h.get(address, "/"))
	require.Equal(t, "data", h.get(address, "/data"))

	_, events := h.deploy()
	require.Equal(t, true, find(events, "deployed", "", "")["unchanged"])
	require.Contains(t, h.run("deploy", "--listen", strings.Replace(address, "127.0.0.1", "127.0.0.2", 1)).stdout, "moved, serving web@")
	require.Contains(t, h.run("deploy", "--listen", address).stdout, "moved, serving web@")
	require.Contains(t, h.run("deploy", "--listen", address).stdout, "unchanged, serving web@")
	require.Equal(t, true, find(events, "built", "output", "source.pex")["hit"])

	stop := hammer(t, address, "one")
	again := find(h.events("restart"), "deployed", "", "")
	stop()
	require.Equal(t, false, again["unchanged"])
	require.Equal(t, find(events, "deployed", "", "")["version"], again["version"])

	stop = hammer(t, address, "one", "two")
	h.write("web/word.py", "WORD = \"two\"\n")
	second, events := h.deploy()
	stop()
	require.Equal(t, address, second, "the address is stable")
	require.Equal(t, "two", h.get(address, "/"))
	require.Equal(t, true, find(events, "built", "output", "deps.pex")["hit"])
	changed := find(events, "changed", "", "")
	require.NotNil(t, changed)
	var paths []string
	for _, f := range changed["files"].([]any) {
		paths = append(paths, f.(map[string]any)["path"].(string))
	}
	require.Equal(t, []string{"PEX-INFO", "web/word.py"}, paths, "one edit changes one file and PEX-INFO")

	h.write("web/word.py", "raise RuntimeError(\"no good\")\n")
	r, err := h.try("deploy", "--ready-timeout", "20s")
	require.Error(t, err)
	require.Equal(t, 5, r.code, r.stderr)
	require.Contains(t, r.stderr, "RuntimeError: no good", "the traceback is shown")
	require.Equal(t, "two", h.get(address, "/"), "the old version goes on serving")

	h.run("rollback", "web")
	require.Equal(t, "one", h.get(address, "/"))
	require.Contains(t, h.run("logs", "web").stdout, "serving one")

	// A restart serves what was served, without the cache.
	h.stop()
	require.NoError(t, os.Rename(h.cache(), h.cache()+".away"))
	require.NoError(t, os.WriteFile(h.cache(), nil, 0o644))
	h.start()
	h.await(address, "one")

	// So does a restart after SIGKILL, which leaves no process of the one before.
	h.end(syscall.SIGKILL)
	require.Eventually(t, func() bool { return len(h.processes()) == 0 }, 20*time.Second, 20*time.Millisecond,
		"versions end with their server: %v", h.processes)
	h.start()
	h.await(address, "one")
	h.stop()
	require.Empty(t, h.processes())
}

// await waits until the address answers with the word: a codeserver that starts answers 503 until its versions are up.
func (h *host) await(address, word string) {
	require.Eventually(h.t, func() bool {
		resp, err := http.Get("http://" + address + "/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return err == nil && resp.StatusCode == http.StatusOK && string(b) == word
	}, 30*time.Second, 20*time.Millisecond, "%s does not answer %q", address, word)
}

// hammer sends requests until the returned function is called; each must succeed with one of the words.
func hammer(t *testing.T, address string, words ...string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := http.Get("http://" + address + "/")
				if err != nil {
					t.Errorf("during the switch: %v", err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || !contains(words, string(b)) {
					t.Errorf("during the switch: %d %q %v", resp.StatusCode, b, err)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

// processes lists those that run from this host's state directory.
func (h *host) processes() []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		args, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if strings.Contains(string(args), filepath.Join(h.dir, "state")) {
			found = append(found, filepath.Base(d)+" "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}
