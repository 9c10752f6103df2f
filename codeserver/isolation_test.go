package codeserver

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/codeserver/bounds"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// greedy is an app that does what its limits forbid, when asked to.
func greedy(word string) map[string]string {
	return map[string]string{"app.py": fmt.Sprintf("WORD = %q\n", word) + greedyMain}
}

const greedyMain = `import http.server, json, os, resource, subprocess, sys, threading
AT_IMPORT = open("/proc/self/cgroup").read(), resource.getrlimit(resource.RLIMIT_NOFILE)
EAT = "a = []\nwhile True: a.append(b'x' * 1000000)"
def survivor(path="/"):
    p = subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(1000)"],
                         stdout=subprocess.PIPE, text=True)
    return p.stdout.readline().strip()
def forks():
    n = 0
    try:
        while True:
            if os.fork() == 0:
                import signal
                while True:
                    signal.pause()
            n += 1
    except OSError:
        return n
def opens():
    kept = []
    try:
        while True:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for fd in kept:
            os.close(fd)
        return len(kept)
def spin():
    for _ in range(4):
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
    return "spins"
ACTIONS = {
    "": lambda: WORD, "import": lambda: json.dumps(AT_IMPORT), "eat": lambda: exec(EAT), "forks": forks, "opens": opens, "spin": spin,
    "child": lambda: subprocess.run([sys.executable, "-c", EAT]), "survivor": survivor, "env": lambda: json.dumps(dict(os.environ)),
    "crash": lambda: os._exit(3),
}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(ACTIONS[self.path[1:]]()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`

// limitedHost has a version of greedy with limits at "web", and one without at "calm".
func limitedHost(t *testing.T, l *codeserverpb.Limits, change ...func(*Options)) (h *host, web, calm *codeserverpb.Deployed) {
	h = newHost(t, change...)
	web = h.deploy(h.spec(greedy("web"), func(s *codeserverpb.VersionSpec) { s.Limits = l }))
	isolation := fmt.Sprint(h.version("web").GetIsolation())
	if strings.Contains(isolation, "not limited") || !strings.Contains(isolation, "together") {
		t.Skip("needs cgroups to make groups in (root, and a writable /sys/fs/cgroup): " + isolation)
	}
	calm, err := h.try(&codeserverpb.DeployRequest{Location: "calm", Spec: h.spec(greedy("calm"))})
	require.NoError(t, err)
	return h, web, calm
}

// version returns the current version of a location, as the API shows it.
func (h *host) version(location string) *codeserverpb.Version {
	list, err := h.List(h.t.Context(), &codeserverpb.ListRequest{})
	require.NoError(h.t, err)
	for _, l := range list.GetLocations() {
		for _, v := range l.GetVersions() {
			if l.GetName() == location && v.GetName() == l.GetCurrent() {
				return v
			}
		}
	}
	require.Fail(h.t, "no version of "+location)
	return nil
}

// groupOf returns the directories of the cgroup of a location's current version.
func (h *host) groupOf(location string) []string {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return h.s.locations[location].current.running.group.Dirs()
}

// ask asks a version to do something. The answer does not come when the version ends of it.
func ask(d *codeserverpb.Deployed, what string) {
	resp, err := http.Get("http://" + d.GetLocation().GetAddress() + "/" + what)
	if err == nil {
		resp.Body.Close()
	}
}

// TestLimitsHold asks what a version's own code sees of its limits when it is imported: started by itself, and forked.
func TestLimitsHold(t *testing.T) {
	t.Parallel()
	h, d, _ := limitedHost(t, &codeserverpb.Limits{MemoryBytes: 256 << 20, CpuMillis: 750, Pids: 50, OpenFiles: 100})
	for _, forked := range []bool{false, true} {
		if forked {
			h.s.zygotes.Wait()
			d = h.deploy(h.spec(greedy("forked"), func(s *codeserverpb.VersionSpec) {
				s.Limits = &codeserverpb.Limits{MemoryBytes: 256 << 20, CpuMillis: 750, Pids: 50, OpenFiles: 100}
			}))
		}
		v := h.version("web")
		require.Equal(t, forked, v.GetForked())
		at := h.get(d, "/import")
		require.Contains(t, at, "[100, 100]")
		for _, c := range []string{"memory", "pids", "cpu", "cpuacct"} {
			require.Regexp(t, `:`+c+`:\S*/pexpress-[0-9a-f]+\.v-web-`+v.GetName()[:12]+`-`, at)
		}
		require.Equal(t, []string{
			"memory: 256 MiB (cgroup v1)", "cpu: 0.75 (cgroup v1)", "pids: 50 (cgroup v1)", "open files: 100 (rlimit)",
			"processes: ended together (cgroup v1)", "user, files, /tmp: shared by all versions (no users are given)",
		}, v.GetIsolation())
		for file, want := range map[string]string{
			"memory/memory.limit_in_bytes": "268435456", "cpu/cpu.cfs_quota_us": "75000", "pids/pids.max": "50",
		} {
			name := filepath.Base(file)
			require.Contains(t, readOneOf(t, h.groupOf("web"), name), want, file)
		}
		require.Positive(t, v.GetUsage().GetMemoryBytes())
		require.GreaterOrEqual(t, v.GetUsage().GetMemoryPeakBytes(), v.GetUsage().GetMemoryBytes())
		require.Positive(t, v.GetUsage().GetCpu().AsDuration())
		require.EqualValues(t, 1, v.GetUsage().GetProcesses())
		shim, err := strconv.Atoi(strings.Fields(readFile(t, fmt.Sprintf("/proc/%d/stat", v.GetPid())))[3])
		require.NoError(t, err)
		require.NotContains(t, readFile(t, fmt.Sprintf("/proc/%d/cgroup", shim)), ".v-web-", "the shim is not in the group")
	}
}

func readFile(t *testing.T, path string) string {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func readOneOf(t *testing.T, dirs []string, name string) string {
	for _, dir := range dirs {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return string(b)
		}
	}
	require.Fail(t, "no "+name)
	return ""
}

// TestMemoryLimit has a version, and a child of one, use more memory than they may: the version ends as a whole, says why
// and how much it was, and is started again. Nobody else notices.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"eat", "child"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h, d, calm := limitedHost(t, &codeserverpb.Limits{MemoryBytes: 100 << 20})
			before, groups := h.version("web"), h.groupOf("web")
			ask(d, what)
			eventually(t, func() bool { return h.version("web").GetUsage().GetRestarts() == 1 }, "it has ended")
			h.awaitLog("web", `it exceeded its memory limit of 100 MiB \(peak (9\d(\.\d)?|100) MiB\) and was ended`)
			await(t, d.GetLocation().GetAddress(), "web")
			require.Empty(t, h.version("web").GetError())
			require.Regexp(t, `^it exceeded its memory limit of 100 MiB \(peak .* MiB\) and was ended$`, h.version("web").GetLastEnding().GetReason())
			require.NotEqual(t, before.GetPid(), h.version("web").GetPid())
			require.Equal(t, "calm", h.get(calm, "/"))
			require.Zero(t, h.version("calm").GetUsage().GetRestarts())
			for _, dir := range groups {
				require.NoDirExists(t, dir)
			}
		})
	}
}

// awaitLog waits until the log of a location's current version matches: it is written after the end was counted.
func (h *host) awaitLog(location, pattern string) {
	h.s.mu.Lock()
	l := h.s.locations[location]
	path := h.s.logPath(l, l.current)
	h.s.mu.Unlock()
	want := regexp.MustCompile(pattern)
	eventually(h.t, func() bool { b, err := os.ReadFile(path); return err == nil && want.Match(b) }, "the log says "+pattern)
}

// TestForkBomb forks until it may not.
func TestForkBomb(t *testing.T) {
	t.Parallel()
	h, d, calm := limitedHost(t, &codeserverpb.Limits{Pids: 40})
	n, err := strconv.Atoi(h.get(d, "/forks"))
	require.NoError(t, err)
	require.Greater(t, n, 10)
	require.Less(t, n, 40)
	require.EqualValues(t, n+1, h.version("web").GetUsage().GetProcesses())
	require.Equal(t, "calm", h.get(calm, "/"))
	require.NoError(t, syscall.Kill(int(h.version("web").GetPid()), syscall.SIGKILL))
	eventually(t, func() bool { return h.version("web").GetUsage().GetRestarts() == 1 }, "it has ended")
	h.awaitLog("web", "it had reached its limit of 40 processes and threads")
	await(t, d.GetLocation().GetAddress(), "web")
	require.EqualValues(t, 1, h.version("web").GetUsage().GetProcesses(), "the others have ended with it")
}

// TestShutInForkBomb forks until it may not, in a sandbox, which it is not entered with the same limit.
func TestShutInForkBomb(t *testing.T) {
	t.Parallel()
	h, d, _ := limitedHost(t, &codeserverpb.Limits{Pids: 20}, withUsers(t))
	require.False(t, h.version("web").GetForked())
	require.Equal(t, "20\n", readOneOf(t, h.groupOf("web"), "pids.max"))
	n, err := strconv.Atoi(h.get(d, "/forks"))
	require.NoError(t, err)
	require.Less(t, n, 20)
}

// TestOpenFiles opens files until it may not.
func TestOpenFiles(t *testing.T) {
	t.Parallel()
	h, d, calm := limitedHost(t, &codeserverpb.Limits{OpenFiles: 128})
	n, err := strconv.Atoi(h.get(d, "/opens"))
	require.NoError(t, err)
	require.Greater(t, n, 64)
	require.Less(t, n, 128)
	require.Equal(t, "web", h.get(d, "/"))
	require.Equal(t, "calm", h.get(calm, "/"))
}

// TestSpin computes on more processors than it may, until the kernel has held it back.
func TestSpin(t *testing.T) {
	t.Parallel()
	h, d, calm := limitedHost(t, &codeserverpb.Limits{CpuMillis: 200})
	require.Equal(t, "spins", h.get(d, "/spin"))
	eventually(t, func() bool {
		stat := readOneOf(t, h.groupOf("web"), "cpu.stat")
		return !strings.Contains(stat, "nr_throttled 0\n")
	}, "it is held back")
	require.Equal(t, "calm", h.get(calm, "/"))
}

// TestSurvivor kills the shim of a version that has moved a process to a session of its own: that one is found, too.
func TestSurvivor(t *testing.T) {
	t.Parallel()
	h, d, _ := limitedHost(t, &codeserverpb.Limits{Pids: 100})
	pid, err := strconv.Atoi(h.get(d, "/survivor"))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, 0))
	shim := 0
	for _, p := range worker.Descendants(os.Getpid()) {
		for _, below := range worker.Descendants(p.PID) {
			if below.PID == int(h.version("web").GetPid()) {
				shim = p.PID
			}
		}
	}
	require.NotZero(t, shim)
	require.True(t, worker.Owned(int(h.version("web").GetPid())))
	require.NoError(t, h.s.limits.Sweep(worker.Owned))
	require.NoError(t, syscall.Kill(pid, 0), "what has a shim is left to it")
	require.False(t, worker.Owned(pid))
	require.NoError(t, syscall.Kill(shim, syscall.SIGKILL))
	eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, "it has ended")
	await(t, d.GetLocation().GetAddress(), "web")
}

// TestNoGroupLeft closes a server: its cgroups are gone.
func TestNoGroupLeft(t *testing.T) {
	t.Parallel()
	h, _, _ := limitedHost(t, &codeserverpb.Limits{Pids: 100})
	groups := h.groupOf("web")
	require.NotEmpty(t, groups)
	h.close()
	for _, dir := range groups {
		require.NoDirExists(t, dir)
	}
}

// TestLimitBeyondHost asks for more processors and memory than this host has: it is accepted, and said.
func TestLimitBeyondHost(t *testing.T) {
	t.Parallel()
	log := new(lockedBuffer)
	h, d, _ := limitedHost(t, &codeserverpb.Limits{CpuMillis: bounds.MostCPU, MemoryBytes: 1 << 50}, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	require.Regexp(t, `^memory: 1024 TiB \(cgroup v[12]; more than the .*iB of this host, which are used up before\)$`, h.version("web").GetIsolation()[0])
	require.Regexp(t, `^cpu: 1000 \(cgroup v[12]; more than the .* of this host: it limits nothing\)$`, h.version("web").GetIsolation()[1])
	require.Regexp(t, `level=WARN msg="a version's limit cpu is more than the .*" location=web .*cpu=1000`, log.String())
	require.Regexp(t, `level=WARN msg="a version's limit memory is more than the .*" location=web .*memory="1024 TiB"`, log.String())
	require.NotRegexp(t, `a version's limit .* location=calm`, log.String())

	remarks := func() int { return strings.Count(log.String(), "a version's limit ") }
	deploy := func(word string, memory int64) {
		h.deploy(h.spec(greedy(word), func(s *codeserverpb.VersionSpec) {
			s.Limits = &codeserverpb.Limits{CpuMillis: bounds.MostCPU, MemoryBytes: memory}
		}))
	}
	require.Equal(t, 2, remarks())
	deploy("two", 1<<50)
	ask(d, "crash")
	eventually(t, func() bool { return h.version("web").GetUsage().GetRestarts() == 1 && h.version("web").GetPid() != 0 }, "it is started again")
	require.Equal(t, 2, remarks(), "once is enough")
	deploy("three", 1<<49)
	require.Equal(t, 3, remarks(), "another limit is news")
}

// TestMostPids: the largest limit that is not refused is one that the kernel takes, of a version that is forked into a sandbox, too.
func TestMostPids(t *testing.T) {
	t.Parallel()
	h, _, _ := limitedHost(t, &codeserverpb.Limits{Pids: bounds.MostPids}, withUsers(t))
	require.Equal(t, "4000000\n", readOneOf(t, h.groupOf("web"), "pids.max"))
	h.s.zygotes.Wait()
	h.deploy(h.spec(greedy("forked"), func(s *codeserverpb.VersionSpec) { s.Limits = &codeserverpb.Limits{Pids: bounds.MostPids} }))
	require.True(t, h.version("web").GetForked())
}

func TestLimitsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, l := range []*codeserverpb.Limits{
		{MemoryBytes: -1}, {MemoryBytes: 1}, {CpuMillis: 9}, {CpuMillis: 1 << 60}, {Pids: 1}, {Pids: -5}, {Pids: bounds.MostPids + 1}, {OpenFiles: 10},
	} {
		message := h.refused(codes.InvalidArgument, webRequest(h.spec(greedy("web"), func(s *codeserverpb.VersionSpec) { s.Limits = l })))
		require.Contains(t, message, "the limit ")
	}
}
