package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// newFleet makes further hosts that share the project and the cache of the first, and starts all.
func newFleet(h *host, n int) []*host {
	all := []*host{h}
	h.start()
	for range n - 1 {
		m := &host{t: h.t, dir: h.t.TempDir(), project: h.project, remote: h.cache(), serve: h.serve}
		m.start()
		all = append(all, m)
	}
	return all
}

func sockets(all []*host) string {
	var to []string
	for _, m := range all {
		to = append(to, m.socket())
	}
	return strings.Join(to, ",")
}

// address returns where a location is on a host, "" if it is not there.
func (h *host) address(location string) string {
	if l := find(h.events("status"), "location", "name", location); l != nil {
		return l["address"].(string)
	}
	return ""
}

// TestFleet deploys to three codeservers, one of which cannot start what the others can.
func TestFleet(t *testing.T) {
	h := newHost(t, webProject("one"))
	all := newFleet(h, 3)
	to := sockets(all)
	events := h.events("deploy", "--to", to)
	builds := 0
	for _, e := range events {
		if e["event"] == "built" && e["output"] == "source.pex" {
			builds++
		}
	}
	require.Equal(t, 1, builds, "built once")
	for _, m := range all {
		require.Equal(t, "deployed", find(events, "host", "host", m.socket())["result"])
		require.Equal(t, "one", m.get(m.address("web"), "/"))
	}
	for _, e := range h.events("deploy", "--to", to, "--window", "3") {
		if e["event"] == "host" {
			require.Equal(t, "unchanged", e["result"])
		}
	}

	// The second cannot start it: the third is not begun.
	broken := filepath.Join(all[1].dir, "state")
	h.write("web/word.py", "import os\nassert not os.getcwd().startswith(\""+broken+"\"), \"not here\"\nWORD = \"two\"\n")
	r, err := h.try("deploy", "--to", to)
	require.Error(t, err)
	require.Equal(t, 5, r.code, r.stderr)
	require.Contains(t, r.stderr, "not here")
	require.Contains(t, r.stderr, "The new version is on 1 of 3 codeservers")
	require.Regexp(t, `(?m)^deployed .*`+all[0].socket()+`: web@`, r.stdout)
	require.Regexp(t, `(?m)^failed .*`+all[1].socket()+`: web@`, r.stdout)
	require.Regexp(t, `(?m)^not begun .*`+all[2].socket()+`: web@`, r.stdout)
	words := func() (all3 []string) {
		for _, m := range all {
			all3 = append(all3, m.get(m.address("web"), "/"))
		}
		return all3
	}
	require.Equal(t, []string{"two", "one", "one"}, words())

	// All or nothing: what had switched goes back, to what it served before this deploy.
	h.write("web/data.txt", "other\n")
	r, err = h.try("deploy", "--to", to, "--all-or-nothing", "--window", "2")
	require.Error(t, err)
	require.Equal(t, 5, r.code, r.stderr)
	require.Contains(t, r.stderr, "The new version is on 0 of 3 codeservers")
	require.Equal(t, []string{"two", "one", "one"}, words())
	require.Equal(t, "data", all[0].get(all[0].address("web"), "/data"))

	// A location that was not there is not there afterwards.
	config, err := os.ReadFile(filepath.Join(h.project, "pyproject.toml"))
	require.NoError(t, err)
	h.write("pyproject.toml", strings.Replace(string(config), ".web]", ".fresh]", 1))
	_, err = h.try("deploy", "--to", to, "--all-or-nothing")
	require.Error(t, err)
	require.Empty(t, all[0].address("fresh"))

	// One that is away: nothing is deployed.
	h.write("pyproject.toml", string(config))
	h.write("web/word.py", "WORD = \"three\"\n")
	all[2].stop()
	r, err = h.try("deploy", "--to", to)
	require.Error(t, err)
	require.Equal(t, 6, r.code, r.stderr)
	require.Contains(t, r.stderr, "nothing is deployed")
	require.Equal(t, "two", h.get(h.address("web"), "/"))

	for _, bad := range [][]string{{"--to", to + ","}, {"--to", h.socket() + "," + h.socket()}, {"--to", to, "--window", "0"}} {
		r, err = h.try(append([]string{"deploy"}, bad...)...)
		require.Error(t, err)
		require.Equal(t, 2, r.code, r.stderr)
	}
}

// TestFleetInterrupted ends the command while the second codeserver waits for a version that never gets ready.
func TestFleetInterrupted(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.serve = sameUser // the version opens a file of the test's
	all := newFleet(h, 2)
	h.run("deploy", "--to", sockets(all))
	hangs := filepath.Join(all[1].dir, "state")
	begun := filepath.Join(h.dir, "begun")
	require.NoError(t, syscall.Mkfifo(begun, 0o600))
	h.write("web/word.py", "import os, time\nif os.getcwd().startswith(\""+hangs+"\"):\n    open(\""+begun+"\", \"w\").close()\n    time.sleep(600)\nWORD = \"two\"\n")
	cmd := exec.Command(filepath.Join(bin, "pexpress"), "deploy", "--to", sockets(all), "--all-or-nothing")
	cmd.Dir, cmd.Env = h.project, h.env()
	require.NoError(t, cmd.Start())
	_, err := os.ReadFile(begun) // returns when the version has opened it
	require.NoError(t, err)
	require.Equal(t, "two", h.get(h.address("web"), "/"))
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, cmd.Wait())
	require.Equal(t, "one", h.get(h.address("web"), "/"), "it went back")
	require.Equal(t, "one", all[1].get(all[1].address("web"), "/"))
}
