package examples

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// begun is a command that goes on.
type begun struct {
	*exec.Cmd
	out, errs bytes.Buffer
}

// begin starts pexpress in the project; end returns what it said once it has ended.
func (h *host) begin(args ...string) *begun {
	c := &begun{Cmd: exec.Command(filepath.Join(bin, "pexpress"), args...)}
	c.Dir, c.Env = h.project, h.env()
	c.Stdout, c.Stderr = &c.out, &c.errs
	require.NoError(h.t, c.Start())
	h.t.Cleanup(func() { _ = c.Process.Kill() })
	return c
}

func (c *begun) end() result {
	_ = c.Wait()
	return result{c.out.String(), c.errs.String(), c.ProcessState.ExitCode()}
}

// TestDeploySays: a deploy that is refused, called off, withdrawn or fails says what serves all the same, or what to do.
func TestDeploySays(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	address, events := h.deploy()
	one := find(events, "deployed", "", "")["version"].(string)[:12]

	h.write("web/word.py", "raise RuntimeError(\"no good\")\n")
	r, err := h.try("deploy", "--ready-timeout", "20s", "--timings")
	require.Error(t, err)
	require.Regexp(t, `RuntimeError: no good\n`+one+` goes on serving at `+address+`\n$`, r.stderr)
	require.Regexp(t, `to its failure:\ncommand (.*\n)+plan (.*\n)+start (.*\n)*unfinished .*\ntotal `, r.stdout)

	h.write("web/word.py", "import time\ntime.sleep(600)\n")
	slow := h.begin("deploy")
	require.Eventually(t, func() bool { return strings.Contains(h.run("status").stdout, "starting") }, 20*time.Second, 20*time.Millisecond)
	for _, args := range [][]string{{"deploy", "web"}, {"rollback", "web"}} {
		r, err = h.try(args...)
		require.Error(t, err)
		require.Contains(t, r.stderr, "another deploy of web is under way: run it again when that is done\n")
	}
	require.NoError(t, slow.Process.Signal(syscall.SIGINT))
	r = slow.end()
	require.Equal(t, 1, r.code)
	require.Regexp(t, `^pexpress: interrupted; .*\n`+one+` serves at `+address+`\n$`, r.stderr)

	h.write("web/word.py", "WORD = \"two\"\n")
	tried := h.begin("deploy", "--canary", "10", "--canary-for", "10m", "--canary-latency", "150")
	require.Eventually(t, func() bool { return strings.Contains(h.run("status").stdout, "10 %") }, 20*time.Second, 20*time.Millisecond, h.run("status").stdout)
	require.NoError(t, tried.Process.Signal(syscall.SIGINT))
	r = tried.end()
	require.Regexp(t, `(?m)^canary +begins  10 % of the requests for web@[0-9a-f]{12}, 10m0s. It is withdrawn if more fail than of `+one+
		`, by over 1 percent point, or its median latency is over 150 % of that one's$`, r.stdout)
	require.Contains(t, r.stderr, "\n"+one+" serves at ")

	r, err = h.try("deploy", "--canary", "10", "--canary-for", "2s", "--output", "json")
	require.NoError(t, err, r.stderr)
	var canaries int
	for line := range strings.Lines(r.stdout) {
		var e map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		if e["event"] == "canary" {
			canaries++
			require.EqualValues(t, 10, e["percent"])
			require.EqualValues(t, 2000, e["milliseconds"])
		}
	}
	require.Equal(t, 1, canaries, r.stdout)
}
