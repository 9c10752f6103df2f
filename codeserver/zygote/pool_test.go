package zygote_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/sandbox"
	"github.com/pexpress/pexpress/codeserver/worker"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

// bench is an environment with one dependency, versions that use it, and a pool.
type bench struct {
	t      *testing.T
	dir    string
	python string
	pool   *zygote.Pool
	log    *log
	others *others
	probes atomic.Int64
	// location is whose the versions are that are started.
	location string
	// hurry has the next version start before the pool has done what it does in the background.
	hurry bool
	// groups makes the groups of zygotes, which the test has to put them into: those in a sandbox enter theirs by themselves.
	groups func() (*sandbox.Spec, *limits.Group, error)
}

func newBench(t *testing.T, dependency string) *bench {
	all := pythons(t)
	return newBenchOf(t, all[len(all)-1], dependency)
}

// newBenchOf is newBench with a certain Python.
func newBenchOf(t *testing.T, python, dependency string) *bench {
	b := &bench{t: t, dir: t.TempDir(), log: &log{}, others: &others{}}
	venv := filepath.Join(b.dir, "venv")
	out, err := exec.Command(python, "-m", "venv", "--without-pip", venv).CombinedOutput()
	require.NoError(t, err, "%s", out)
	b.install("dependency", dependency)
	b.python = filepath.Join(venv, "bin/python")
	b.open()
	return b
}

// install puts a module into the environment.
func (b *bench) install(name, content string) {
	site, err := filepath.Glob(filepath.Join(b.dir, "venv/lib/python3.*/site-packages"))
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Join(site[0], name+".py"), []byte(content), 0o644))
}

func (b *bench) open() {
	var err error
	b.pool, err = zygote.OpenPool(filepath.Join(b.dir, "warm"), b.others, slog.New(slog.NewTextHandler(b.log, nil)))
	require.NoError(b.t, err)
	b.t.Cleanup(b.pool.Close)
}

// started is a version that runs, and says "ready" when it does.
type started struct {
	*worker.Worker
	warm   bool
	launch *zygote.Launch
	out    *log
}

const app = `import dependency, signal, sys, time
print("made by", dependency.PID, flush=True)
%
print("ready", flush=True)
time.sleep(600)
`

// version returns a version whose sources are src.
func (b *bench) version(code string, files map[string]string, env ...string) (v zygote.Version, src string) {
	src = filepath.Join(b.dir, fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, code, files)))) // those of a digest
	require.NoError(b.t, os.MkdirAll(src, 0o755))
	require.NoError(b.t, os.WriteFile(filepath.Join(src, "main.py"), []byte(strings.Replace(app, "%", code, 1)), 0o644))
	for name, content := range files {
		require.NoError(b.t, os.WriteFile(filepath.Join(src, name), []byte(content), 0o644))
	}
	v = zygote.Version{
		Sandbox: b.groups, Location: b.location,
		Key: "key", Python: b.python, Args: []string{"-m", "main"}, Sources: []string{src}, Own: []string{"PORT", "PYTHONPATH"},
		Env: append([]string{"PATH=/usr/bin:/bin", "PYTHONUNBUFFERED=1", "PYTHONPATH=" + src, "PORT=1"}, env...),
	}
	v.Probe = func(ctx context.Context, fork func(worker.ForkRequest) error) error {
		return b.probe(ctx, v, src, fork)
	}
	return v, src
}

// start starts a version as a codeserver does, and waits until it is ready or has ended.
func (b *bench) start(code string, cold bool, files map[string]string, env ...string) *started {
	v, src := b.version(code, files, env...)
	s := &started{out: &log{}}
	spec := worker.Spec{Dir: src, Env: v.Env, Log: s.out.line, Grace: 5 * time.Second}
	l := b.pool.Launch(b.t.Context(), v, &spec, cold)
	s.warm, s.launch = l.Warm(), l
	var err error
	s.Worker, err = worker.Start(spec)
	require.NoError(b.t, err, "%s", s.out)
	b.t.Cleanup(func() { s.Stop(b.t.Context()) })
	require.Eventually(b.t, func() bool {
		select {
		case <-s.Done():
			return true
		default:
			return strings.Contains(s.out.String(), "ready")
		}
	}, 20*time.Second, time.Millisecond)
	if strings.Contains(s.out.String(), "ready") {
		l.Ready(s.PID())
	} else {
		l.Failed(true)
	}
	if !b.hurry {
		b.pool.Wait()
	}
	return s
}

// probe starts a version to see whether it becomes ready.
func (b *bench) probe(ctx context.Context, v zygote.Version, dir string, fork func(worker.ForkRequest) error) error {
	b.probes.Add(1)
	out := &log{}
	spec := worker.Spec{Program: v.Python, Args: v.Args, Dir: dir, Env: v.Env, Log: out.line, Grace: 5 * time.Second, Fork: fork}
	if fork == nil {
		spec.Args = b.pool.Cold(v.Args)
	}
	w, err := worker.Start(spec)
	if err != nil {
		return err
	}
	defer w.Stop(context.WithoutCancel(ctx))
	for !strings.Contains(out.String(), "ready") {
		select {
		case <-w.Done():
			return errors.New("not ready")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// others is what other hosts know, or an error.
type others struct {
	mu      sync.Mutex
	known   []byte
	err     error
	fetched int
}

func (o *others) Fetch(context.Context, string) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fetched++
	return o.known, o.err
}

func (o *others) Publish(_ context.Context, _ string, b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.known = b
	}
	return o.err
}

func (o *others) learned(t *testing.T) *zygote.Learned {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, err := zygote.ParseLearned(o.known)
	require.NoError(t, err, "%s", o.known)
	return l
}

const remembers = "import os\nPID = os.getpid()\n"

// importer returns the process that imported the dependency.
func (s *started) importer(t *testing.T) int {
	fields := strings.Fields(s.out.String())
	require.GreaterOrEqual(t, len(fields), 3, "%s", s.out)
	pid, err := strconv.Atoi(fields[2])
	require.NoError(t, err, "%s", s.out)
	return pid
}

// TestWarm starts versions one after the other: the first by itself, the others forked from a process that has imported
// the dependency once. They end as asked, and outlive the zygote.
func TestWarm(t *testing.T) {
	b := newBench(t, remembers)
	first := b.start("", false, nil)
	require.False(t, first.warm)
	require.Equal(t, first.PID(), first.importer(t))
	second := b.start("", false, nil)
	require.True(t, second.warm, "%s", b.log)
	from := second.importer(t)
	require.NotEqual(t, second.PID(), from, "it was imported before")
	third := b.start("signal.signal(signal.SIGTERM, lambda *a: sys.exit(5))", false, nil)
	require.Equal(t, from, third.importer(t))
	third.Stop(t.Context())
	require.EqualError(t, third.Err(), "the process ended with status 5")

	require.NoError(t, syscall.Kill(from, syscall.SIGKILL))
	require.Eventually(t, func() bool { return syscall.Kill(from, 0) != nil }, 10*time.Second, time.Millisecond, "reaped")
	require.NoError(t, syscall.Kill(second.PID(), 0), "a version outlives its zygote")
	fourth := b.start("", false, nil)
	require.True(t, fourth.warm, "another zygote was made before")
	require.NotContains(t, []int{from, fourth.PID()}, fourth.importer(t))
	fifth := b.start("", false, nil)
	require.True(t, fifth.warm)
	require.NoError(t, syscall.Kill(second.PID(), syscall.SIGKILL))
	<-second.Done()
	require.EqualError(t, second.Err(), "the process was ended by a signal: killed", "the shim knows, without its zygote")
	b.pool.Close()
	require.NoError(t, syscall.Kill(fifth.PID(), 0))
	fifth.Stop(t.Context())
	require.ErrorIs(t, syscall.Kill(fifth.PID(), 0), syscall.ESRCH)
}

// TestMadeMeanwhile has a version in need of a zygote that was about to be made in the background: it is made once.
func TestMadeMeanwhile(t *testing.T) {
	b := newBench(t, remembers)
	b.hurry = true
	done := b.pool.Busy()
	require.False(t, b.start("", false, nil).warm)
	s := b.start("", false, nil)
	require.True(t, s.warm)
	done()
	b.pool.Wait()
	require.Equal(t, []int{s.importer(t)}, b.pool.Stats().Zygotes)
}

// TestIdle has a zygote ended that nobody has needed for long; it comes back when somebody does.
func TestIdle(t *testing.T) {
	b := newBench(t, remembers)
	b.start("", false, nil)
	from := b.start("", false, nil).importer(t)
	b.pool.EndIdle(time.Now().Add(5 * time.Hour))
	require.NoError(t, syscall.Kill(from, 0))
	b.pool.EndIdle(time.Now().Add(7 * time.Hour))
	require.ErrorIs(t, syscall.Kill(from, 0), syscall.ESRCH)
	again := b.start("", false, nil)
	require.True(t, again.warm, "%s", b.log)
	require.NotEqual(t, from, again.importer(t))
}

// TestShimOfForked kills the shim of a forked version: the version ends with it.
func TestShimOfForked(t *testing.T) {
	b := newBench(t, remembers)
	b.start("", false, nil)
	s := b.start("", false, nil)
	require.True(t, s.warm)
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(s.PID()) + "/stat")
	require.NoError(t, err)
	shim, err := strconv.Atoi(strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(shim, syscall.SIGKILL))
	<-s.Done()
	require.ErrorContains(t, s.Err(), "watches over it")
	require.Eventually(t, func() bool { return syscall.Kill(s.PID(), 0) != nil }, 10*time.Second, time.Millisecond)
}

// TestProgram runs a program of the dependencies by -m: it is never imported in the zygote, where it would run.
func TestProgram(t *testing.T) {
	b := newBench(t, remembers)
	site, err := filepath.Glob(filepath.Join(b.dir, "venv/lib/python3.*/site-packages"))
	require.NoError(t, err)
	tool := filepath.Join(site[0], "tool")
	require.NoError(t, os.Mkdir(tool, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(tool, "__init__.py"), []byte("import dependency\n"), 0o644))
	ran := filepath.Join(b.dir, "ran")
	require.NoError(t, os.WriteFile(filepath.Join(tool, "__main__.py"), []byte(
		"import os, time\nopen('"+ran+"', 'a').write(str(os.getpid()) + ' ')\nprint('ready', flush=True)\ntime.sleep(600)\n"), 0o644))
	start := func() (*worker.Worker, *log, bool) {
		out := &log{}
		spec := worker.Spec{Dir: b.dir, Log: out.line, Grace: time.Second}
		v := zygote.Version{Key: "tool", Python: b.python, Args: []string{"-m", "tool"}, Env: []string{"PATH=/usr/bin:/bin"}}
		spec.Env = v.Env
		l := b.pool.Launch(b.t.Context(), v, &spec, false)
		w, err := worker.Start(spec)
		require.NoError(t, err)
		t.Cleanup(func() { w.Stop(t.Context()) })
		require.Eventually(t, func() bool { return strings.Contains(out.String(), "ready") }, 20*time.Second, time.Millisecond)
		l.Ready(w.PID())
		b.pool.Wait()
		return w, out, l.Warm()
	}
	first, _, _ := start()
	second, out, warm := start()
	require.True(t, warm)
	require.Equal(t, "ready\n", out.String(), "and no warning")
	pids, err := os.ReadFile(ran)
	require.NoError(t, err)
	require.Equal(t, []string{strconv.Itoa(first.PID()), strconv.Itoa(second.PID())}, strings.Fields(string(pids)))
}

// TestStopped stops a zygote, which then forks nothing: it is ended, and the next version starts by itself.
func TestStopped(t *testing.T) {
	b := newBench(t, remembers)
	b.start("", false, nil)
	zygoteOf := b.start("", false, nil).importer(t)
	require.NoError(t, syscall.Kill(zygoteOf, syscall.SIGSTOP))
	spec := worker.Spec{Dir: b.dir, Log: func([]byte) {}, Grace: time.Second}
	l := b.pool.Launch(t.Context(), zygote.Version{
		Key: "key", Python: b.python, Args: []string{"-m", "main"}, Env: []string{"PATH=/usr/bin:/bin", "PYTHONUNBUFFERED=1"},
	}, &spec, false)
	require.True(t, l.Warm())
	_, err := worker.Start(spec)
	require.ErrorContains(t, err, "the zygote has ended")
	l.Failed(true)
	require.Eventually(t, func() bool { return syscall.Kill(zygoteOf, 0) != nil }, 10*time.Second, time.Millisecond, "it is ended")
	require.True(t, b.start("", false, nil).warm, "nobody was at fault, and another one is made")
	require.Zero(t, b.probes.Load())
}

// TestFits starts versions that must not be forked: with modules of their own that a zygote has others of.
func TestFits(t *testing.T) {
	b := newBench(t, remembers)
	b.start("", false, nil)
	require.True(t, b.start("", false, nil).warm)
	shadow := b.start("print(dependency.__file__)", false, map[string]string{"dependency.py": "PID = 0\n"})
	require.False(t, shadow.warm)
	require.Zero(t, shadow.importer(t), "its own module")
	require.False(t, b.start("", false, map[string]string{"sitecustomize.py": ""}).warm)
	require.False(t, b.start("", true, nil).warm, "told not to")
}

// TestEnvironments has locations of the same Key that differ in a variable, which the dependency reads: each has a zygote of
// its own, as long as the location has that environment.
func TestEnvironments(t *testing.T) {
	b := newBench(t, remembers+"MODE = os.environ.get('MODE')\n")
	start := func(location, mode string) (from int) {
		t.Helper()
		b.location = location
		s := b.start("print(dependency.MODE)", false, nil, "MODE="+mode)
		require.True(t, s.warm, "%s", b.log)
		require.Contains(t, s.out.String(), "\n"+mode+"\n")
		s.Stop(t.Context())
		return s.importer(t)
	}
	b.start("", false, nil) // of no location that is left
	one, two := start("one", "a"), start("two", "b")
	require.NotEqual(t, one, two)
	require.Equal(t, one, start("one", "a"))
	require.Equal(t, two, start("two", "b"))
	require.Equal(t, two, start("three", "b"), "what is the same is shared")

	anew := start("two", "c")
	require.Equal(t, two, start("three", "b"), "somebody else's, too")
	require.Equal(t, anew, start("three", "c"))
	start("four", "d")
	require.ErrorIs(t, syscall.Kill(two, 0), syscall.ESRCH, "nobody's any more")
	require.NoError(t, b.pool.Keep(map[string][]string{"key": {"one", "two"}}))
	require.ElementsMatch(t, []int{one, anew}, b.pool.Stats().Zygotes, "those of locations that are left")
	require.NoError(t, b.pool.Keep(map[string][]string{}))
	require.Empty(t, b.pool.Stats().Zygotes)
}

// TestOneEnvironment has a module that can be imported with one variable only, and a location with a module of its own in place of
// one: neither keeps from other environments what they can have.
func TestOneEnvironment(t *testing.T) {
	b := newBench(t, remembers)
	b.install("picky", "import os\nassert os.environ['MODE'] == 'a'\nPID = os.getpid()\n")
	b.install("common", "import os\nPID = os.getpid()\n")
	const all = "import os, common, picky\nprint(*('forked' if m.PID != os.getpid() else 'imported' for m in (common, picky)))"
	b.location = "one"
	b.start(all, false, nil, "MODE=a")
	b.location = "two"
	require.True(t, b.start("", false, nil, "MODE=b").warm)
	require.False(t, b.start("import common", false, map[string]string{"common.py": ""}, "MODE=b").warm)
	b.location = "one"
	b.pool.EndIdle(time.Now().Add(7 * time.Hour))
	again := b.start(all, false, nil, "MODE=a")
	require.True(t, again.warm, "%s", b.log)
	require.Contains(t, again.out.String(), "forked forked")
}

// TestManyEnvironments has more locations than a Key has zygotes: those that have waited longest for a version end.
func TestManyEnvironments(t *testing.T) {
	b := newBench(t, remembers)
	start := func(i int) int {
		b.location = strconv.Itoa(i)
		s := b.start("", false, nil, "MODE="+b.location)
		s.Stop(t.Context())
		require.Equal(t, i > 0, s.warm, "%s", b.log)
		return s.importer(t)
	}
	var from []int
	for i := range 10 {
		from = append(from, start(i))
	}
	require.ElementsMatch(t, from[2:], b.pool.Stats().Zygotes)
	require.Equal(t, from[2], start(2))
	back := start(1)
	require.ElementsMatch(t, append(from[4:], from[2], back), b.pool.Stats().Zygotes, "it comes back, for another")
}

// TestBroken has versions that fail either way, which says nothing of forking.
func TestBroken(t *testing.T) {
	b := newBench(t, remembers)
	b.pool.Pause(func(time.Duration) bool { return true })
	b.start("", false, nil)
	require.True(t, b.start("sys.exit(3)", false, nil).warm)
	require.False(t, b.start("sys.exit(3)", true, nil).warm)
	require.True(t, b.start("", false, nil).warm)

	given := b.start("sys.exit(4)", false, nil) // its deploy is given up before it is started by itself
	require.True(t, given.warm)
	given.launch.Settle()
	b.pool.EndIdle(time.Now().Add(7 * time.Hour))
	b.start("", true, nil)
	require.NotEmpty(t, b.pool.Stats().Zygotes, "one is made for those who come after")
	require.Empty(t, b.log.String())
	b.pool.WaitLate()
	left, err := filepath.Glob(filepath.Join(b.dir, "warm", "learn-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
