package examples

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/auth/authtest"
)

// forge is a repository on a code host, with all that its pipelines need: git, an OIDC provider, the cache that believes
// it, and a codeserver.
type forge struct {
	*host
	t        *testing.T
	origin   string // the repository on the host
	checkout string
	issuer   *authtest.Issuer
	tokens   *httptest.Server // where a GitHub runner gets its tokens
	claims   map[string]any   // of the tokens
	asked    atomic.Int64     // for tokens
	cache    *pexcache
	home     string // of pexpress on the runner
}

// repositoryID is what GitHub and GitLab know the repository by.
const repositoryID = "4711"

func newForge(t *testing.T) *forge {
	f := &forge{t: t, issuer: authtest.New(t), home: t.TempDir()}
	f.tokens = httptest.NewServer(http.HandlerFunc(f.giveToken))
	t.Cleanup(f.tokens.Close)
	f.serveCache()
	// The codeserver reads the cache with a token of its own, which no job sees.
	t.Setenv("PEXPRESS_CACHE_TOKEN", "codeserver-codeserver-codeserver-0")
	f.host = newHost(t, webProject("one"))
	f.remote = "grpc://" + f.cache.grpc + "/main"
	f.start()
	f.origin, f.checkout = filepath.Join(t.TempDir(), "origin.git"), f.project
	f.git("init", "-q", "--bare", "-b", "main", f.origin)
	f.git("init", "-q", "-b", "main")
	f.git("remote", "add", "origin", f.origin)
	require.NoError(t, os.WriteFile(filepath.Join(f.checkout, ".git", "info", "exclude"), []byte("/pexpress-ci\n"), 0o644))
	return f
}

// giveToken is GitHub's token service: it signs what the job asks for, for who shows the job's request token.
func (f *forge) giveToken(w http.ResponseWriter, r *http.Request) {
	f.asked.Add(1)
	if r.Header.Get("Authorization") != "Bearer request-token" {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	claims := maps.Clone(f.claims)
	claims["aud"] = r.URL.Query().Get("audience")
	_ = json.NewEncoder(w).Encode(map[string]string{"value": f.issuer.Sign(f.t, time.Now(), claims)})
}

// serveCache starts a pexcache in which only protected branches write to main, and pull requests to an overlay of it.
func (f *forge) serveCache() {
	binary, err := buildPexcache()
	require.NoError(f.t, err)
	dir := f.t.TempDir()
	config, tokens := filepath.Join(dir, "pexcache.toml"), filepath.Join(dir, "tokens")
	sum := sha256.Sum256([]byte("codeserver-codeserver-codeserver-0"))
	require.NoError(f.t, os.WriteFile(tokens, []byte("codeserver "+hex.EncodeToString(sum[:])+"\n"), 0o600))
	require.NoError(f.t, os.WriteFile(config, []byte(`
listen = "127.0.0.1:0"
http-listen = "none"
disk = "`+filepath.Join(dir, "disk")+`"
log-level = "debug"
tokens = "`+tokens+`"
[[oidc]]
issuer = "`+f.issuer.URL+`"
audience = "pexcache"
[[oidc.rule]]
claims = { repository = "org/app", ref_protected = "true" }
principal = "push"
[[oidc.rule]]
claims = { repository = "org/app" }
principal = "pr"
[[instance]]
name = "main"
read = ["oidc:*", "token:codeserver"]
write-cas = ["oidc:push"]
write-actions = ["oidc:push"]
[[instance]]
name = "pr-*"
parent = "main"
read = ["oidc:pr"]
write-cas = ["oidc:pr"]
write-actions = ["oidc:pr"]
`), 0o600))
	f.cache = &pexcache{t: f.t, log: filepath.Join(dir, "log")}
	log, err := os.Create(f.cache.log)
	require.NoError(f.t, err)
	defer log.Close()
	cmd := exec.Command(binary, "serve", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(f.t, cmd.Start())
	f.cache.pid = cmd.Process.Pid
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.Eventually(f.t, func() bool {
		f.cache.grpc = f.cache.address("serving gRPC")
		return f.cache.grpc != ""
	}, 30*time.Second, 10*time.Millisecond, "pexcache said:\n%s", f.cache.said())
}

// git runs git in the checkout and returns what it says.
func (f *forge) git(args ...string) string {
	f.t.Helper()
	require.NoError(f.t, os.MkdirAll(f.checkout, 0o755))
	args = append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"}, args...)
	return strings.TrimSpace(client(f.t, f.checkout, []string{"GIT_CONFIG_GLOBAL=/dev/null"}, "git", args...))
}

// push commits the checkout to a branch and returns the commit.
func (f *forge) push(branch string) string {
	f.t.Helper()
	f.git("checkout", "-q", "-B", branch)
	f.git("add", "-A")
	f.git("commit", "-q", "--allow-empty", "-m", "change")
	f.git("push", "-q", "-f", "origin", branch)
	return f.git("rev-parse", "HEAD")
}

// locations returns the addresses that are served, by name.
func (f *forge) locations() map[string]string {
	served := map[string]string{}
	for _, e := range f.events("status") {
		if name, ok := e["name"].(string); ok {
			served[name], _ = e["address"].(string)
		}
	}
	return served
}

// job is what came of one.
type job struct {
	code    int
	log     string
	outputs map[string]string
	summary string
	comment string
	report  map[string]any
}

// machine is what a runner's steps have of the machine's environment: no secret of the test's.
func (f *forge) machine() map[string]string {
	env := map[string]string{"PEXPRESS_HOME": f.home, "GIT_CONFIG_GLOBAL": "/dev/null"}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		for _, prefix := range []string{"PIP_", "UV_", "SSL_", "HOME", "PATH", "NETRC", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http", "no_proxy"} {
			if strings.HasPrefix(name, prefix) {
				env[name] = value
			}
		}
	}
	env["PATH"] = bin + ":" + env["PATH"]
	return env
}

// bash runs a script as both runners do, and returns what it wrote and how it ended.
func (f *forge) bash(script string, env map[string]string, dir string) (string, int) {
	file := filepath.Join(f.t.TempDir(), "script.sh")
	require.NoError(f.t, os.WriteFile(file, []byte(script), 0o644))
	cmd := exec.CommandContext(f.t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", file)
	cmd.Dir = dir
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if _, ended := err.(*exec.ExitError); err != nil && !ended { //nolint:errorlint // as it is
		require.NoError(f.t, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// heredocs parses a file of name<<END, lines, END, as GITHUB_OUTPUT is.
func heredocs(t *testing.T, text string) map[string]string {
	all := map[string]string{}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		name, end, ok := strings.Cut(lines[i], "<<")
		if !ok {
			require.Empty(t, lines[i])
			continue
		}
		var value []string
		for i++; lines[i] != end; i++ {
			value = append(value, lines[i])
		}
		all[name] = strings.Join(value, "\n")
	}
	return all
}

func readString(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// on says of a job where it runs, for messages.
func (j *job) String() string { return fmt.Sprintf("exit status %d\n%s\n%s", j.code, j.log, j.summary) }
