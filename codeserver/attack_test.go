package codeserver

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// attackTools is what attacks are written with: a call of the kernel, or its error.
const attackTools = `
import ctypes, fcntl, shutil, signal, socket, struct, subprocess, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def kernel(name, *args):
    n = getattr(libc, name)(*args)
    if n < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return n
def syscall(*args):
    return kernel("syscall", *args)
def read(path):
    with open(path, "rb") as f:
        return f.read(4096)
def write(path, data=b"x", mode="wb"):
    with open(path, mode) as f:
        f.write(data)
def effective(p):
    with open("/proc/%d/status" % p.pid) as f:
        uid = [l.split()[2] for l in f if l.startswith("Uid:")]
    p.kill()
    p.wait()
    return int(uid[0])
def inside(f, flags=0x10000000 | 0x20000, *more):  # in a user namespace of its own, as its root
    r, w = os.pipe()
    if os.fork() == 0:
        try:
            uid = os.getuid()
            kernel("unshare", flags)
            write("/proc/self/setgroups", b"deny"), write("/proc/self/uid_map", b"0 %d 1" % uid), write("/proc/self/gid_map", b"0 %d 1" % uid)
            os.write(w, b"y" + repr(f()).encode())
        except BaseException as e:
            os.write(w, b"n%s: %s" % (type(e).__name__.encode(), str(e).encode()))
        os._exit(0)
    os.close(w)
    answer = os.fdopen(r).read()
    os.wait()
    if answer[:1] != "y":
        raise OSError(answer[1:])
    return answer
`

// attacks are what one location tries against another, or the host: expressions that raise an exception, or are false.
// Where is what is there, as seen from outside.
var attacks = map[string]string{
	"environment":          `read("/proc/{pid}/environ")`,
	"arguments":            `read("/proc/{pid}/cmdline")`,
	"process list":         `b"TOKEN" in subprocess.check_output(["ps", "axeww"]) or len(subprocess.check_output(["ps", "axo", "pid="]).split()) > 5`,
	"memory by /proc":      `open("/proc/{pid}/mem", "rb")`,
	"descriptors":          `os.listdir("/proc/{pid}/fd")`,
	"file system":          `os.listdir("/proc/{pid}/root/")`,
	"working directory":    `os.listdir("/proc/{pid}/cwd/")`,
	"ptrace":               `kernel("ptrace", 16, {pid}, 0, 0)`,
	"ptrace seize":         `kernel("ptrace", 0x4206, {pid}, 0, 0)`,
	"process_vm_readv":     `syscall(310, {pid}, (ctypes.c_void_p * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8), 1, (ctypes.c_void_p * 2)(4096, 8), 1, ctypes.c_long(0))`,
	"pidfd_getfd":          `syscall(438, syscall(434, {pid}, 0), 1, 0)`,
	"signal":               `os.kill({pid}, 0)`,
	"kill":                 `os.kill({pid}, 9)`,
	"kill its shim":        `os.kill({shim}, 9)`,
	"stop its shim":        `os.kill({shim}, signal.SIGSTOP)`,
	"kill the codeserver":  `os.kill({codeserver}, 9)`,
	"stop it by pidfd":     `syscall(424, syscall(434, {pid}, 0), 19, None, 0)`,
	"limit it":             `syscall(302, {pid}, 7, (ctypes.c_ulong * 2)(3, 3), None)`,
	"slow it down":         `os.setpriority(os.PRIO_PROCESS, {pid}, 19)`,
	"move it":              `os.sched_setaffinity({pid}, {0})`,
	"state":                `read("{state}/state.json")`,
	"its log":              `os.listdir("{state}/logs")`,
	"write its log":        `write("{log}", b"forged", "ab")`,
	"its source":           `read("{source}/app.py")`,
	"its bytecode":         `write("{source}/__pycache__/app.cpython-311.pyc")`,
	"other sources":        `len(os.listdir("{state}/store/trees")) > 1`,
	"blobs":                `os.listdir("{state}/store/blobs")`,
	"its home":             `os.listdir("{home}")`,
	"homes":                `os.listdir("{state}/homes")`,
	"environments":         `os.listdir("{state}/python/envs")`,
	"wheels":               `os.listdir("{state}/python/wheels")`,
	"write to wheels":      `write("{state}/python/wheels/x")`,
	"write to its library": `write(os.environ["VIRTUAL_ENV"] + "/lib/python3.11/site-packages/evil.pth")`,
	"write to Python":      `write(os.path.dirname(json.__file__) + "/__pycache__/evil.pyc")`,
	"write its own code":   `write("app.py")`,
	"remove its own code":  `os.remove("app.py")`,
	"replace bytecode":     `os.rename("__pycache__", "old")`,
	"own code by root":     `inside(lambda: write("app.py"))`,
	"remount code":         `inside(lambda: kernel("mount", None, b"/", None, 0x20 | 0x1000, None) or write("/etc/evil"))`,
	"secrets file":         `read("{secrets}")`,
	"secret's file":        `read("{value}")`,
	"shadow":               `read("/etc/shadow")`,
	"write to the host":    `write("/etc/evil")`,
	"host's /tmp":          `"{marker}" in os.listdir("/tmp")`,
	"host's /dev/shm":      `[f for f in os.listdir("/dev/shm") if not f.startswith("mine")]`,
	"uncover /tmp":         `inside(lambda: kernel("umount2", b"/tmp", 2))`,
	"uncover the state":    `inside(lambda: kernel("umount2", b"{state}", 2))`,
	"uncover /proc":        `inside(lambda: kernel("umount2", b"/proc", 2))`,
	"another /proc":        `inside(lambda: kernel("mount", b"proc", b"/proc", b"proc", 0, None) or os.listdir("/proc/{pid}"))`,
	"uncover what's below": `inside(lambda: syscall(428, -100, b"/", 1))`,
	"a disk":               `inside(lambda: kernel("mount", b"/dev/vda", b"/tmp", b"ext4", 0, None))`,
	"a device":             `inside(lambda: os.mknod("/tmp/mem", 0o20666, os.makedev(1, 1)))`,
	"root":                 `os.setuid(0)`,
	"its user":             `os.setuid({user})`,
	"its group":            `os.setgroups([{user}, 0])`,
	"set-user-ID program":  `effective(subprocess.Popen(["su"], stdin=subprocess.PIPE)) == 0`,
	"its mounts":           `syscall(308, os.open("/proc/{pid}/ns/mnt", os.O_RDONLY), 0)`,
	"host's mounts":        `syscall(308, os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)`,
	"control socket":       `socket.socket(socket.AF_UNIX).connect("{control}")`,
	"shims' sockets":       `os.listdir("{state}/run")`,
	"its port":             `socket.create_server(("127.0.0.1", {port}))`,
	"its port, shared":     `socket.create_server(("127.0.0.1", {port}), reuse_port=True)`,
	"its port everywhere":  `socket.create_server(("0.0.0.0", {port}), reuse_port=True)`,
	"its address":          `socket.create_server(("127.0.0.1", {address}), reuse_port=True)`,
	"leave its cgroup":     `[write(os.path.join("/sys/fs/cgroup", c, "cgroup.procs"), b"0") for c in ("memory", "pids", "cpu", ".")]`,
	"raise its limits":     `write("{group}/memory.limit_in_bytes", b"-1")`,
	"enter its cgroup":     `write("{itsgroup}/cgroup.procs", b"0")`,
	"end its cgroup":       `write("{itsgroup}/memory.limit_in_bytes", b"1")`,
	"cgroups of its own":   `inside(lambda: kernel("mount", b"x", b"/tmp", b"cgroup", 0, b"memory") or write("/tmp/memory.limit_in_bytes", b"-1"), 0x10000000 | 0x20000 | 0x2000000)`,
	"link to shadow":       `os.link("/etc/shadow", os.environ["HOME"] + "/shadow")`,
	"shared memory":        `kernel("shmget", {key}, 0, 0)`,
	"kernel's log":         `open("/dev/kmsg")`,
	"more than its /tmp":   `[shutil.copyfileobj(open("/dev/zero", "rb"), open("/tmp/mine", "wb"))]`,
	"files without end":    `[open("/dev/shm/mine%d" % n, "w").close() for n in range(10 ** 6)]`,
}

// victim is a location with a secret, and what an attacker who has looked at the host from outside knows of it.
func (h *host) victim(d *codeserverpb.Deployed, where map[string]string) {
	h.s.mu.Lock()
	l := h.s.locations["victim"]
	run := l.current.running
	log := h.s.logPath(l, l.current)
	where["user"] = fmt.Sprint(l.user)
	where["home"] = h.s.homeOf(l, l.user)
	h.s.mu.Unlock()
	pid := run.worker.PID()
	where["pid"], where["shim"], where["codeserver"] = fmt.Sprint(pid), fmt.Sprint(h.shimOf("victim")), fmt.Sprint(os.Getpid())
	where["state"], where["log"], where["port"] = h.opts.State, log, fmt.Sprint(run.port)
	_, where["address"], _ = strings.Cut(d.GetLocation().GetAddress(), ":")
	where["source"] = filepath.Join(h.opts.State, "store", "trees", l.current.source.Hash()+"-source-"+where["user"])
	require.DirExists(h.t, where["source"])
	where["itsgroup"] = memoryOf(run.group.Dirs())
}

// memoryOf returns the directory of a cgroup that limits memory.
func memoryOf(dirs []string) string {
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "memory.limit_in_bytes")); err == nil {
			return dir
		}
	}
	return "/sys/fs/cgroup"
}

// shimOf returns the process that owns that of a location's current version.
func (h *host) shimOf(location string) int {
	group := h.groupOf(location)[0]
	for _, p := range worker.Descendants(os.Getpid()) {
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		if strings.HasSuffix(strings.TrimSpace(p.Command), " pexpress-worker") && strings.Contains(string(environ), group) {
			return p.PID
		}
	}
	require.Fail(h.t, "no shim of "+location)
	return 0
}

// TestAttacks has a location try all it can against another one, and against the host: once started by itself, once forked.
func TestAttacks(t *testing.T) {
	t.Parallel()
	users := withUsers(t)
	dir := t.TempDir()
	marker, err := os.CreateTemp("/tmp", "pexpress-host-")
	require.NoError(t, err)
	defer os.Remove(marker.Name())
	defer marker.Close()
	where := map[string]string{
		"secrets": filepath.Join(dir, "secrets.toml"), "value": filepath.Join(dir, "value"), "marker": filepath.Base(marker.Name()),
		"control": filepath.Join(dir, "control"), "key": "4711",
	}
	const token = "only the victim's"
	require.NoError(t, os.WriteFile(where["value"], []byte(token), 0o600))
	require.NoError(t, os.WriteFile(where["secrets"], fmt.Appendf(nil, "[location.victim]\nTOKEN = { file = %q }\n", where["value"]), 0o600))
	control, err := net.Listen("unix", where["control"])
	require.NoError(t, err)
	defer control.Close()
	require.NoError(t, os.Chmod(where["control"], 0o600))
	h := newHost(t, users, func(o *Options) { o.Secrets = where["secrets"] })
	victim := h.deployTo("victim", h.spec(prober("victim"), withSecret))
	var shared int
	h.eval(victim, `import ctypes; result = ctypes.CDLL(None).shmget(4711, 4096, 0o1666)`, &shared)
	require.GreaterOrEqual(t, shared, 0)
	for _, forked := range []bool{false, true} {
		if forked {
			h.s.zygotes.Wait()
			victim = h.deployTo("victim", h.spec(prober("victim again"), withSecret))
			require.True(t, h.version("victim").GetForked())
		}
		h.victim(victim, where)
		attacker := h.deployTo("attacker", h.spec(prober(fmt.Sprint("attacker", forked)), func(s *codeserverpb.VersionSpec) {
			s.Cold, s.Limits = !forked, &codeserverpb.Limits{TmpBytes: 4 << 20, MemoryBytes: 512 << 20}
		}))
		require.Equal(t, forked, h.version("attacker").GetForked())
		where["group"] = memoryOf(h.groupOf("attacker"))
		var replace []string
		for name, value := range where {
			replace = append(replace, "{"+name+"}", value)
		}
		for _, name := range slices.Sorted(maps.Keys(attacks)) {
			attack, err := json.Marshal(strings.NewReplacer(replace...).Replace(attacks[name]))
			require.NoError(t, err)
			var got any
			h.eval(attacker, attackTools+"result = attempt(lambda: eval("+string(attack)+", globals()) or 'False: ')", &got)
			text, failed := got.(string)
			kind, _, _ := strings.Cut(text, ":")
			failed = failed && (strings.HasSuffix(kind, "Error") || kind == "False")
			require.True(t, failed, "%s (forked: %t) succeeds: %v", name, forked, got)
			require.NotContains(t, []string{"NameError", "TypeError", "SyntaxError", "AttributeError", "ValueError"}, kind, "%s: %s", name, text)
			t.Logf("%-22s %s", name, text)
			require.Equal(t, token, h.secretOf(victim), "after %s", name)
		}
		require.Zero(t, h.version("victim").GetUsage().GetRestarts())
	}
}

func (h *host) secretOf(d *codeserverpb.Deployed) (token string) {
	h.eval(d, `result = os.environ["TOKEN"]`, &token)
	return token
}

// hostile is a dependency that tries, when a zygote imports it, what a zygote could: to become a user of a location, to use
// what the codeserver has passed to it, and to get at versions that others have forked. What came of it is in FOUND.
const hostile = `import ctypes, os, signal
FOUND = {}
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, f):
    try:
        FOUND[name] = "yes: %r" % (f(),)
    except BaseException as e:
        FOUND[name] = "no: %s: %s" % (type(e).__name__, e)
def map_root():
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")
    with open("/proc/self/uid_map", "w") as f:
        f.write("0 0 1")
FOUND["user"] = os.getuid()
with open("/proc/self/cgroup") as f:
    FOUND["cgroups"] = [l.split(":")[1] for l in f if ".v-_zygote-" in l]
FOUND["others"] = [p for p in os.listdir("/proc") if p.isdigit() and os.stat("/proc/" + p).st_uid != os.getuid()]
for n in range(FIRST, FIRST + 20):
    if n != os.getuid():
        attempt("user %d" % n, lambda: os.setuid(n))
attempt("root", lambda: os.setuid(0))
attempt("host", lambda: open("/etc/evil", "w"))
attempt("python", lambda: open(os.path.join(os.environ["VIRTUAL_ENV"], "evil"), "w"))
attempt("state", lambda: os.listdir(os.path.dirname(os.environ["HOME"]) + "/homes"))
for pid in range(2, 1 << 16):
    try:
        os.kill(pid, 0)
        if pid not in (os.getpid(), os.getppid()):
            FOUND["signal"] = "yes: %d" % pid
    except OSError:
        pass
if os.fork() == 0:
    attempt("a map with root", map_root)
    os._exit(FOUND["a map with root"].startswith("yes"))
FOUND["a map with root"] = "yes" if os.wait()[1] else "no"
del n, pid
`

// TestHostileDependency has a location's dependency, imported in a zygote, try to be more than what the location is.
func TestHostileDependency(t *testing.T) {
	t.Parallel()
	h := newHost(t, withUsers(t))
	h.deployTo("victim", h.spec(prober("victim")))
	evil := wheel(t, "evil", member{name: "evil.py", content: strings.ReplaceAll(hostile, "FIRST", fmt.Sprint(h.opts.Users.First))})
	deps := depsTree(t, h.cas, map[string][]byte{"evil-1.0-py3-none-any.whl": evil}).Proto()
	files := func(word string) map[string]string {
		f := prober(word)
		f["app.py"] = "import evil\n" + f["app.py"]
		return f
	}
	with := func(s *codeserverpb.VersionSpec) { s.DepsRoot = deps }
	h.deployTo("attacker", h.spec(files("cold"), with))
	h.s.zygotes.Wait()
	attacker := h.deployTo("attacker", h.spec(files("warm"), with))
	require.True(t, h.version("attacker").GetForked())
	var found map[string]any
	h.eval(attacker, "result = evil.FOUND", &found)
	h.s.mu.Lock()
	user := h.s.locations["attacker"].user
	h.s.mu.Unlock()
	require.NotEqual(t, float64(user), found["user"], "it was imported in the zygote, which has a user of its own")
	require.Greater(t, len(found), 20)
	for name, got := range found {
		if text, ok := got.(string); ok {
			require.True(t, strings.HasPrefix(text, "no"), "%s: %s", name, text)
		}
	}
	require.Empty(t, found["others"])
	require.Subset(t, found["cgroups"], []any{"memory", "pids", "cpu"})
	var ids []int
	h.eval(attacker, "result = os.getresuid()", &ids)
	require.Equal(t, []int{user, user, user}, ids)
	await(t, attacker.GetLocation().GetAddress(), "warm")
}
