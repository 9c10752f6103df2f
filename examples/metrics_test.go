package examples

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMetricsAreNotForEveryone asks for the metrics as one who may see all, as one who may see a part, and as others.
func TestMetricsAreNotForEveryone(t *testing.T) {
	ask := func(base string, change func(*http.Request)) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/metrics", nil)
		require.NoError(t, err)
		change(req)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	h := newHost(t, webProject("one"))
	base := h.withPage()
	h.deploy()
	code, text := ask(base, func(*http.Request) {})
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, text, `codeserver_ready{location="web"} 1`)
	code, text = ask(base, func(r *http.Request) { r.Host = "rebound.example:80" })
	require.Equal(t, http.StatusMisdirectedRequest, code)
	require.NotContains(t, text, "codeserver_ready")
	h.stop()

	all, allLine := h.token("all")
	some, someLine := h.token("some")
	config := h.file("codeserver.toml", `tokens = "`+h.file("tokens", allLine+"\n"+someLine+"\n")+`"
[[grant]]
locations = ["*"]
read = ["token:all"]
[[grant]]
locations = ["w*", "?"]
deploy = ["token:some"]
`)
	require.Contains(t, serveFails(t, "--state", h.dir+"/s", "--cache", h.cache(), "--listen", "127.0.0.1:0", "--config", config), `"?"`)
	config = h.file("codeserver.toml", `tokens = "`+filepath.Join(h.dir, "tokens")+`"
[[grant]]
locations = ["*"]
read = ["token:all"]
[[grant]]
locations = ["w*", "*b"]
deploy = ["token:some"]
`)
	require.NoError(t, os.Truncate(filepath.Join(h.dir, "codeserver.log"), 0))
	log, err := os.OpenFile(filepath.Join(h.dir, "codeserver.log"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "codeserver"), "serve", "--state", filepath.Join(h.dir, "state"), "--cache", h.cache(),
		"--listen", "127.0.0.1:0", "--config", config, "--http", "127.0.0.1:0")
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	defer func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
	}()
	base = h.pageAddress()
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		code   int
	}{
		{"nobody", func(*http.Request) {}, http.StatusUnauthorized},
		{"wrong token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong") }, http.StatusUnauthorized},
		{"two tokens", func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer " + all, "Bearer " + all} }, http.StatusUnauthorized},
		{"one who may see some", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+some) }, http.StatusForbidden},
		{"one who may see all", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+all) }, http.StatusOK},
		{"the same, as a password", func(r *http.Request) { r.SetBasicAuth("any", all) }, http.StatusOK},
	} {
		code, text := ask(base, c.change)
		require.Equal(t, c.code, code, "%s: %s", c.name, text)
		if c.code != http.StatusOK {
			require.NotContains(t, text, "codeserver_", c.name)
			require.NotContains(t, text, all)
		}
	}
}
