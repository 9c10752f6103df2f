package examples

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// devProcess is a 'pexpress dev' and the events that it tells.
type devProcess struct {
	h      *host
	cmd    *exec.Cmd
	events chan map[string]any
}

// dev starts 'pexpress dev' with more variables, and arguments.
func (h *host) dev(env []string, args ...string) *devProcess {
	p := &devProcess{h: h, events: make(chan map[string]any, 10000)}
	p.cmd = exec.Command(filepath.Join(bin, "pexpress"), append([]string{"dev", "--output", "json"}, args...)...)
	p.cmd.Dir, p.cmd.Env = h.project, append(h.env(), env...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	require.NoError(h.t, err)
	require.NoError(h.t, p.cmd.Start())
	h.t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	go func() {
		defer close(p.events)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			e := map[string]any{}
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				e = map[string]any{"event": "garbage", "text": lines.Text()}
			}
			p.events <- e
		}
	}()
	return p
}

// next returns the next event of one of the kinds.
func (p *devProcess) next(kinds ...string) map[string]any {
	p.h.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case e, ok := <-p.events:
			require.True(p.h.t, ok, "pexpress dev has ended; expected %s", kinds)
			require.NotEqual(p.h.t, "garbage", e["event"], "%v", e)
			if contains(kinds, e["event"].(string)) {
				return e
			}
		case <-limit:
			log, _ := os.ReadFile(filepath.Join(p.h.dir, "codeserver.log"))
			require.Fail(p.h.t, "no event", "%s; the codeserver's log:\n%s", kinds, log)
		}
	}
}

// deployed waits for the next outcome, which must be a deploy, and returns the address.
func (p *devProcess) deployed() string {
	p.h.t.Helper()
	e := p.next("deployed", "failed")
	require.Equal(p.h.t, "deployed", e["event"], "%v", e)
	return e["address"].(string)
}

// failed waits for a deploy that fails for the reason. A file that was caught half written may fail before.
func (p *devProcess) failed(why string) map[string]any {
	p.h.t.Helper()
	for {
		if e := p.next("failed"); strings.Contains(e["message"].(string), why) {
			return e
		}
	}
}

// answers deploys until the address answers with the word: what was saved in between may be deployed on its own.
func (p *devProcess) answers(address, path, want string) (deploys int) {
	p.h.t.Helper()
	for p.h.get(address, path) != want {
		if p.next("deployed", "failed")["event"] == "deployed" {
			deploys++
		}
	}
	return deploys
}

// end interrupts the command, which must end well.
func (p *devProcess) end() {
	require.NoError(p.h.t, p.cmd.Process.Signal(syscall.SIGINT))
	for range p.events {
		continue
	}
	require.NoError(p.h.t, p.cmd.Wait())
}

// TestDev edits a project under 'pexpress dev': good and broken, many files at once, gone and renamed ones.
func TestDev(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	d := h.dev(nil)
	require.EqualValues(t, 1, d.next("watching")["locations"])
	address := d.deployed()
	require.Equal(t, "one", h.get(address, "/"))

	h.write("web/word.py", "WORD = \"two\"\n")
	d.answers(address, "/", "two")

	h.write("web/word.py", "WORD = = 1\n")
	failed := d.failed("SyntaxError")
	require.Contains(t, failed["message"], "word.py", "where it is")
	require.NotEmpty(t, failed["serving"])
	require.EqualValues(t, 5, failed["exit_code"])
	require.Equal(t, "two", h.get(address, "/"), "the version before serves on")

	// An editor that saves by rename.
	h.write("web/.word.py.new", "WORD = \"three\"\n")
	require.NoError(t, os.Rename(filepath.Join(h.project, "web/.word.py.new"), filepath.Join(h.project, "web/word.py")))
	d.answers(address, "/", "three")

	// 200 files at once, in directories that are new.
	for i := range 200 {
		h.write(fmt.Sprintf("web/new%d/sub/m%d.py", i%7, i), fmt.Sprintf("N = %d\n", i))
	}
	h.write("web/word.py", "from web.new3.sub.m199 import N\nWORD = str(N)\n")
	require.LessOrEqual(t, d.answers(address, "/", "199"), 10, "one change, or a few if the machine stalled in it")

	// What is in a directory that was new then is watched too, and under its new name when it is renamed.
	h.write("web/new3/sub/m199.py", "N = \"deep\"\n")
	d.answers(address, "/", "deep")
	require.NoError(t, os.Rename(filepath.Join(h.project, "web/new3"), filepath.Join(h.project, "web/moved")))
	d.failed("No module named 'web.new3'")
	require.Equal(t, "deep", h.get(address, "/"))
	h.write("web/word.py", "from web.moved.sub.m199 import N\nWORD = str(N)\n")
	d.answers(address, "/", "deep")
	h.write("web/moved/sub/m199.py", "N = \"moved\"\n")
	d.answers(address, "/", "moved")

	// Two that change names: each is watched by its own.
	at := func(name string) string { return filepath.Join(h.project, "web", name) }
	for _, names := range [][2]string{{"new1", "between"}, {"new2", "new1"}, {"between", "new2"}} {
		require.NoError(t, os.Rename(at(names[0]), at(names[1])))
	}
	h.write("web/word.py", "from web.new1.sub.m2 import N\nWORD = str(N)\n")
	d.answers(address, "/", "2")
	h.write("web/new1/sub/m2.py", "N = \"swapped\"\n")
	d.answers(address, "/", "swapped")

	// A file that goes.
	require.NoError(t, os.Remove(filepath.Join(h.project, "web/data.txt")))
	d.failed("data.txt")
	h.write("web/data.txt", "more\n")
	d.answers(address, "/data", "more")

	// What is left out of source.pex is nothing to deploy for.
	h.write("web/__pycache__/x.pyc", "x")
	h.write("app.log~", "x")
	h.write("web/word.py", "WORD = \"last\"\n")
	require.LessOrEqual(t, d.answers(address, "/", "last"), 1)
	d.end()
	require.Equal(t, "last", h.get(address, "/"), "a codeserver that was there before stays")
}

// TestDevSettings edits what says how to build.
func TestDevSettings(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	d := h.dev(nil)
	address := d.deployed()
	good := webProject("one")["pyproject.toml"]

	h.write("pyproject.toml", "[project\n")
	require.EqualValues(t, 3, d.failed("pyproject.toml")["exit_code"])
	require.Equal(t, "one", h.get(address, "/"))
	undone := func() {
		h.write("pyproject.toml", good)
		e := d.next("deployed", "failed")
		for e["event"] == "failed" { // half written
			e = d.next("deployed", "failed")
		}
		require.Equal(t, true, e["unchanged"], "what serves is said again, and nothing is deployed")
	}
	undone()

	h.write("pyproject.toml", strings.Replace(good, "version = \"1.0\"\n", "version = \"1.0\"\ndependencies = [\"six\"]\n", 1))
	require.Contains(t, d.failed("requirement six")["message"], "pexpress lock")
	undone()

	h.write("pyproject.toml", good+"env = { GREETING = \"hello\" }\n")
	h.write("web/word.py", "import os\nWORD = os.environ[\"GREETING\"]\n")
	for h.get(address, "/") != "hello" {
		d.next("deployed", "failed")
	}
	d.end()
}

// TestDevOwnServer starts without a codeserver, loses the one that it started, and leaves nothing behind.
func TestDevOwnServer(t *testing.T) {
	h := newHost(t, webProject("one"))
	d := h.dev([]string{"PEXPRESS_CODESERVER="})
	pid := int(d.next("started")["pid"].(float64))
	address := d.deployed()
	require.Equal(t, "one", h.get(address, "/"))

	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	d.next("server-ended")
	require.NotEqual(t, pid, int(d.next("started")["pid"].(float64)))
	require.Equal(t, address, d.deployed(), "its state was kept")
	h.await(address, "one")

	h.write("web/word.py", "WORD = \"two\"\n")
	d.answers(address, "/", "two")
	d.end()
	require.Empty(t, running(h.dir), "nothing that it started is left")

	d = h.dev([]string{"PEXPRESS_CODESERVER="})
	require.Equal(t, address, d.deployed(), "locations keep their addresses")
	require.NoError(t, d.cmd.Process.Kill())
	require.Eventually(t, func() bool { return len(running(h.dir)) == 0 }, 30*time.Second, 20*time.Millisecond,
		"nor when it is killed")
}

// TestDevSecrets runs a location with secret-env on the codeserver that dev starts.
func TestDevSecrets(t *testing.T) {
	project := webProject("one")
	project["pyproject.toml"] += "secret-env = [\"GREETING\"]\n"
	project["web/word.py"] = "import os\nWORD = os.environ[\"GREETING\"]\n"
	h := newHost(t, project)
	secrets := filepath.Join(h.dir, "secrets.toml")
	require.NoError(t, os.WriteFile(secrets, []byte("[location.web]\nGREETING = { env = \"THE_GREETING\" }\n"), 0o600))
	r, err := h.try("dev", "--secrets", secrets)
	require.Error(t, err, "$PEXPRESS_CODESERVER names one that has its own")
	require.Equal(t, 2, r.code, r.stderr)

	d := h.dev([]string{"PEXPRESS_CODESERVER="})
	require.Contains(t, d.next("deployed", "failed")["message"], "--secrets", "what is missing")
	d.end()
	d = h.dev([]string{"PEXPRESS_CODESERVER=", "THE_GREETING=hello"}, "--secrets", secrets)
	require.Equal(t, "hello", h.get(d.deployed(), "/"))
	d.end()
}

// running lists the processes that mention a directory in their arguments.
func running(dir string) (found []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		args, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if strings.Contains(string(args), dir) {
			found = append(found, filepath.Base(d)+" "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}

// TestDevRefuses starts where there is nothing to do.
func TestDevRefuses(t *testing.T) {
	h := newHost(t, webProject("one"))
	r, err := h.try("dev", "nowhere")
	require.Error(t, err)
	require.Equal(t, 2, r.code, r.stderr)
	require.Contains(t, r.stderr, "no location \"nowhere\"")
}
