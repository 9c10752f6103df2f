package codeserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/sandbox"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// withUsers gives locations users of their own.
func withUsers(t *testing.T) func(*Options) {
	if err := sandbox.Check(); err != nil {
		t.Skip("needs to be able to shut versions in: ", err)
	}
	// Of the codeservers that run at once each has its own, and none those of one that does not belong to the tests.
	first := 64100 + int(ranges.Add(1))*20
	return func(o *Options) { o.Users = Users{First: first, Last: first + 19} }
}

var ranges atomic.Int32

// prober answers with what the expression in its path is.
func prober(word string) map[string]string {
	return map[string]string{"app.py": fmt.Sprintf("WORD = %q\n", word) + proberMain, "lib/one.py": "ONE = 1\n", "lib/__init__.py": ""}
}

const proberMain = `import http.server, json, os, sys, urllib.parse
import lib.one
AT_IMPORT = os.getresuid(), os.getresgid(), os.getgroups(), open("/proc/self/status").read(), os.listdir("/tmp")
def attempt(f, *args):
    try:
        return f(*args)
    except BaseException as e:
        return type(e).__name__ + ": " + str(e)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        code = self.rfile.read(int(self.headers["Content-Length"])).decode()
        space = dict(globals())
        try:
            exec(code, space)
            body = json.dumps(space.get("result"), default=repr).encode()
        except BaseException as e:
            body = json.dumps("%s: %s" % (type(e).__name__, e)).encode()
        self.answer(body)
    def do_GET(self):
        self.answer(WORD.encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`

// eval has a version run Python, and returns what that leaves in result.
func (h *host) eval(d *codeserverpb.Deployed, code string, result any) {
	h.t.Helper()
	body := h.post(d, code)
	require.NoError(h.t, json.Unmarshal([]byte(body), result), "%s", body)
}

// deployTo deploys to any location.
func (h *host) deployTo(location string, spec *codeserverpb.VersionSpec) *codeserverpb.Deployed {
	h.t.Helper()
	d, err := h.try(&codeserverpb.DeployRequest{Location: location, Spec: spec})
	require.NoError(h.t, err)
	return d
}

// TestOwnUser asks versions what they are, started by themselves and forked.
func TestOwnUser(t *testing.T) {
	t.Parallel()
	h := newHost(t, withUsers(t))
	h.deployTo("other", h.spec(prober("other"), func(s *codeserverpb.VersionSpec) { s.Cold = true }))
	d := h.deployTo("web", h.spec(prober("cold"), inMemory))
	h.s.mu.Lock()
	user := h.s.locations["web"].user
	h.s.mu.Unlock()
	require.Contains(t, h.version("web").GetIsolation(), fmt.Sprintf("user: %d", user))
	require.Contains(t, h.version("web").GetIsolation(), "/tmp: its own, at most 64 MiB")
	for _, forked := range []bool{false, true} {
		if forked {
			h.s.zygotes.Wait()
			d = h.deployTo("web", h.spec(prober("warm"), inMemory))
		}
		require.Equal(t, forked, h.version("web").GetForked())
		var got map[string]any
		h.eval(d, `
status = dict(l.split(":\t", 1) for l in AT_IMPORT[3].splitlines())
home = os.environ["HOME"]
result = {
    "ids": AT_IMPORT[:3], "privileges": sorted({status[k].strip() for k in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")}),
    "no new ones": status["NoNewPrivs"], "tmp": AT_IMPORT[4], "user": os.environ["USER"], "tmpdir": os.environ.get("TMPDIR"),
    "state": sorted(os.listdir(os.path.dirname(home))), "home": os.listdir(home),
    "wrote": [open(dir + "/kept", "w").write("x") for dir in (home, "/tmp", "/var/tmp", "/dev/shm")],
    "size": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize, "bytecode": sorted(os.listdir("lib/__pycache__")),
    "others": [p for p in os.listdir("/proc") if p.isdigit() and os.stat("/proc/" + p).st_uid != os.getuid()],
    "descriptors": sorted({os.readlink("/proc/self/fd/" + fd).split(":")[0] for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)}),
}`, &got)
		id := float64(user)
		kept := []any{}
		if forked {
			kept = []any{"kept"} // in a home, that is: what was in /tmp is gone
		}
		state := []any{"home", "python", "store", "warm"}
		require.Equal(t, map[string]any{
			"ids": []any{[]any{id, id, id}, []any{id, id, id}, []any{}}, "privileges": []any{"0000000000000000"}, "no new ones": "1",
			"tmp": []any{strings.Split(h.opts.State, "/")[2]}, "user": "pexpress", "tmpdir": nil, "state": state, "home": kept,
			"wrote": []any{1., 1., 1., 1.}, "size": float64(64 << 20), "others": []any{},
			"bytecode": []any{"__init__.cpython-311.pyc", "one.cpython-311.pyc"}, "descriptors": got["descriptors"],
		}, got)
		for _, d := range got["descriptors"].([]any) {
			// The file of a version's imports stays open after its name is gone.
			require.Regexp(t, "^(/dev/null|pipe|socket|.*/warm/learn-.*)$", d)
		}
	}
	_, err := os.Stat(filepath.Join(h.s.homes(), fmt.Sprintf("web.%d", user), "kept"))
	require.NoError(t, err)
	h.restart()
	await(t, d.GetLocation().GetAddress(), "warm")
	require.Contains(t, h.version("web").GetIsolation(), fmt.Sprintf("user: %d", user), "as before")
	_, err = h.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "web"})
	require.NoError(t, err)
	eventually(t, func() bool {
		homes, err := os.ReadDir(h.s.homes())
		return err == nil && len(homes) == 1
	}, "its home is gone")
	h.deployTo("web", h.spec(prober("again")))
	h.s.mu.Lock()
	again := h.s.locations["web"].user
	h.s.mu.Unlock()
	require.Contains(t, h.version("web").GetIsolation(), fmt.Sprintf("user: %d", again))
	require.Greater(t, again, user, "not that of the one before")
}

func inMemory(s *codeserverpb.VersionSpec) { s.Limits = &codeserverpb.Limits{MemoryBytes: 256 << 20} }

func (h *host) post(d *codeserverpb.Deployed, code string) string {
	h.t.Helper()
	resp, err := http.Post("http://"+d.GetLocation().GetAddress()+"/", "text/x-python", strings.NewReader(code))
	require.NoError(h.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(h.t, err)
	return string(b)
}

// TestKeeper has a version that was forked into a sandbox end in each way. Its parent is not its shim, but a process that
// tells that one; all of it is told and ended as of a version that starts by itself.
func TestKeeper(t *testing.T) {
	t.Parallel()
	h := newHost(t, withUsers(t))
	h.deploy(h.spec(greedy("cold")))
	h.s.zygotes.Wait()
	d := h.deploy(h.spec(greedy("warm")))
	restarts := int64(0)
	again := func(why string) (pid int) {
		t.Helper()
		if why != "" {
			restarts++
			eventually(t, func() bool { return h.version("web").GetUsage().GetRestarts() == restarts }, "it has ended")
			h.awaitLog("web", why)
		}
		await(t, d.GetLocation().GetAddress(), "warm")
		require.True(t, h.version("web").GetForked())
		return int(h.version("web").GetPid())
	}
	survivor := func() int {
		pid, err := strconv.Atoi(h.get(d, "/survivor"))
		require.NoError(t, err)
		return pid
	}
	ended := func(pid int) {
		t.Helper()
		eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, "it has ended")
	}
	pid := again("")
	require.True(t, worker.Owned(pid), "retention of an adopted version rests on it")
	left := survivor()
	ask(d, "crash")
	pid = again("the process ended with status 3")
	ended(left)
	left = survivor()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSEGV))
	pid = again("the process was ended by a signal: segmentation fault")
	ended(left)
	left = survivor()
	keeper, err := strconv.Atoi(strings.Fields(readFile(t, fmt.Sprintf("/proc/%d/stat", pid)))[3])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(keeper, syscall.SIGKILL))
	again("the process was ended by a signal: killed")
	ended(left)
	left = survivor()
	require.NoError(t, syscall.Kill(h.shimOf("web"), syscall.SIGKILL))
	pid = again("the process that watches over it ended")
	ended(left)
	left = survivor()
	h.close()
	ended(pid)
	ended(left)
}

func TestParseUsers(t *testing.T) {
	none, err := ParseUsers("none")
	require.NoError(t, err)
	require.True(t, none.None())
	require.Equal(t, "--users none", none.Without)
	auto, err := ParseUsers("auto")
	require.NoError(t, err)
	for _, bad := range []string{"", "root", "0-100", "999-2000", "2000", "2000-", "2000-2006", "3000-2000", "2000-99999999999"} {
		_, err := ParseUsers(bad)
		require.ErrorContains(t, err, "neither auto, none nor a range", bad)
	}
	given, err := ParseUsers("2000-2007")
	if auto.None() {
		require.NotEmpty(t, auto.Without)
		require.ErrorContains(t, err, auto.Without, "what was asked for is not left out in silence")
		return
	}
	require.NoError(t, err)
	require.Equal(t, DefaultUsers, auto)
	require.Equal(t, Users{First: 2000, Last: 2007}, given)
}

// TestUsersInTurn gives ids in turn, none that is somebody's.
func TestUsersInTurn(t *testing.T) {
	t.Parallel()
	h := newHost(t, withUsers(t), func(o *Options) { o.Users.Last = o.Users.First + 7 })
	h.s.tidy.Lock() // or retention deletes the home that is nobody's
	defer h.s.tidy.Unlock()
	first := h.opts.Users.First
	next := func() int {
		id, err := h.s.zygoteUser()
		require.NoError(t, err)
		return id
	}
	require.Equal(t, first, next())
	require.Equal(t, first+1, next())
	h.s.mu.Lock()
	h.s.locations["kept"] = &location{name: "kept", user: first + 2}
	h.s.mu.Unlock()
	require.NoError(t, os.MkdirAll(filepath.Join(h.s.homes(), fmt.Sprintf("gone.%d", first+3)), 0o700))
	require.Equal(t, first+4, next())
	for range 3 {
		next()
	}
	require.Equal(t, first, next(), "from the beginning again")
	h.s.mu.Lock()
	for i := range 8 {
		h.s.locations[fmt.Sprint(i)] = &location{name: fmt.Sprint(i), user: first + i}
	}
	h.s.mu.Unlock()
	_, err := h.s.zygoteUser()
	require.ErrorIs(t, err, errNoUser)
	h.s.mu.Lock()
	clear(h.s.locations)
	h.s.mu.Unlock()
}
