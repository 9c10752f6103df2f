package zygote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/worker"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

func TestMain(m *testing.M) {
	worker.Main()
	if dir := os.Getenv(startVariable); dir != "" {
		if err := startOne(dir); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// pythons are the interpreters of this machine, each once.
func pythons(t *testing.T) []string {
	candidates, _ := filepath.Glob("/root/.pyenv/versions/3.*/bin/python3")
	for _, name := range []string{"python3", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13"} {
		if path, err := exec.LookPath(name); err == nil {
			candidates = append(candidates, path)
		}
	}
	var found []string
	for _, path := range candidates {
		real, err := exec.Command(path, "-c", "import os, sys; sys.version_info < (3, 9) or print(os.path.realpath(sys.executable), end='')").Output()
		if err == nil && len(real) > 0 && !slices.Contains(found, string(real)) {
			found = append(found, string(real))
		}
	}
	require.NotEmpty(t, found, "needs a Python 3.9 or later")
	return found
}

type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) line(b []byte) { _, _ = l.Write(append(bytes.Clone(b), '\n')) }

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// version is a program that says all that it sees of itself.
const version = `
import json, os, random, resource, signal, sys, threading, warnings
import helper, decimal
fds = sorted(int(f) for f in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + f))
def kinds():
    for f in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink("/proc/self/fd/" + f).split(":")[0]
            if not kind.endswith("learn"):
                yield kind
        except OSError:
            pass  # that of the directory
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "env": dict(os.environ), "file": __file__, "name": __name__,
    "main": sys.modules["__main__"].__dict__ is globals(), "fds": [f for f in fds if f < 3], "open": sorted(kinds()), "inherited": [f for f in fds if os.path.exists("/proc/self/fd/%d" % f) and os.get_inheritable(f)],
    "sigterm": str(signal.getsignal(signal.SIGTERM)), "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "sigchld": str(signal.getsignal(signal.SIGCHLD)), "sigpipe": str(signal.getsignal(signal.SIGPIPE)),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "stdin": os.readlink("/proc/self/fd/0"),
    "group": os.getpgrp() == os.getpid(), "session": os.getsid(0), "umask": os.umask(0o22), "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "threads": threading.active_count(), "main_thread": threading.current_thread() is threading.main_thread(),
    "helper": helper.__file__, "unbuffered": sys.stdout.write_through, "argv0": getattr(sys, "orig_argv", [0])[1:], "spec": __spec__ and __spec__.name,
    "warnings": len(warnings.filters), "optimize": sys.flags.optimize, "tty": sys.stdin.isatty(), "cmdline": open("/proc/self/cmdline").read().rstrip("\0").split("\0"),
    "excepthook": sys.excepthook is sys.__excepthook__,
}, sort_keys=True))
print(json.dumps({"random": random.random(), "decimal": "decimal" in sys.modules}))
sys.exit(7)
`

// TestSame runs a program by itself and forked, with each interpreter, and compares all that it sees of itself.
func TestSame(t *testing.T) {
	for _, python := range pythons(t) {
		for _, how := range []string{"-m", "script"} {
			t.Run(filepath.Base(python)+how, func(t *testing.T) {
				dir := t.TempDir()
				for name, content := range map[string]string{"app/__init__.py": "", "app/main.py": version, "lib/helper.py": ""} {
					require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
					require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
				}
				script, err := zygote.Script(dir)
				require.NoError(t, err)
				args := []string{"-m", "app.main", "one", "two"}
				if how == "script" {
					args = []string{filepath.Join(dir, "app/main.py"), "one", "two"}
				}
				env := []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONPATH=" + dir + ":" + dir + "/lib", "PYTHONUNBUFFERED=1", "SECRET=a=b", "TZ=Asia/Tokyo"}
				start := func(program string, args []string, fork func(worker.ForkRequest) error) []map[string]any {
					out := &log{}
					w, err := worker.Start(worker.Spec{Program: program, Args: args, Dir: dir, Env: env, Log: out.line, Grace: time.Second, Fork: fork})
					require.NoError(t, err, "%s", out)
					t.Cleanup(func() { w.Stop(context.Background()) })
					<-w.Done()
					require.EqualError(t, w.Err(), "the process ended with status 7", "%s", out)
					var said []map[string]any
					for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
						m := map[string]any{}
						require.NoError(t, json.Unmarshal([]byte(line), &m), "%s", out)
						said = append(said, m)
					}
					return said
				}
				learn := filepath.Join(dir, "learn")
				require.NoError(t, os.WriteFile(learn, nil, 0o600))
				plain := start(python, args, nil)
				cold := start(python, zygote.Cold(script, learn, args), nil)
				learnt, err := os.ReadFile(learn)
				require.NoError(t, err)
				modules := strings.Fields(string(learnt))
				require.Contains(t, modules, "helper")
				require.Contains(t, modules, "decimal")
				zlog := &log{}
				z, err := zygote.Start(t.Context(), zygote.Config{
					Python: python, Script: script, Env: []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}, Modules: modules, Log: zlog,
				})
				require.NoError(t, err, "%s", zlog)
				t.Cleanup(z.Close)
				require.Contains(t, z.Modules, "decimal")
				require.NotContains(t, z.Modules, "helper", "it is the version's own")
				warm := start("", args, z.Fork)
				again := start("", args, z.Fork)
				delete(cold[0], "cmdline")
				require.Equal(t, plain[0]["cmdline"], warm[0]["cmdline"])
				delete(plain[0], "cmdline")
				delete(warm[0], "cmdline")
				for _, m := range [][]map[string]any{plain, cold, warm} {
					delete(m[0], "session")
				}
				require.Equal(t, plain[0], cold[0])
				require.Equal(t, plain[0], warm[0])
				require.NotEqual(t, warm[1]["random"], again[1]["random"])
				require.Empty(t, zlog.String())
			})
		}
	}
}

// TestAnswerWithoutEnd has a dependency give the zygote's answer in its place, and not come to an end of it.
func TestAnswerWithoutEnd(t *testing.T) {
	dir := t.TempDir()
	script, err := zygote.Script(dir)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(dir+"/evil.py", []byte(`import json
def dump(answer, f):
    f.write('{"modules": ["' + "a" * (64 << 20) + '"]}')
json.dump = dump
`), 0o644))
	_, err = zygote.Start(t.Context(), zygote.Config{
		Python: pythons(t)[0], Script: script, Env: []string{"PYTHONPATH=" + dir}, Modules: []string{"evil"}, Log: &log{},
	})
	require.ErrorContains(t, err, "its answer")
}
