package codeserver

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestLocation follows one location through the API.
func TestLocation(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	watch, err := h.Watch(t.Context(), &codeserverpb.WatchRequest{Location: "web"})
	require.NoError(t, err)
	one := h.spec(webApp("one"))
	d := h.deploy(one)
	require.False(t, d.GetUnchanged())
	require.Equal(t, "one", h.get(d, "/"))
	require.True(t, h.deploy(one).GetUnchanged())
	first := d.GetLocation().GetCurrent()

	two := h.deploy(h.spec(webApp("two")))
	require.Equal(t, "two", h.get(d, "/"), "the address is stable")
	second := two.GetLocation().GetCurrent()
	for m := new(codeserverpb.Location); m.GetCurrent() != second; {
		m, err = watch.Recv()
		require.NoError(t, err)
	}

	back, err := h.rollback("")
	require.NoError(t, err)
	require.Equal(t, first, back.GetLocation().GetCurrent())
	require.Equal(t, "one", h.get(d, "/"))
	back, err = h.rollback(second[:12])
	require.NoError(t, err)
	require.Equal(t, second, back.GetLocation().GetCurrent())
	_, err = h.rollback("ffffffffffffffffff")
	require.Equal(t, codes.NotFound, status.Code(err), "%v", err)

	list, err := h.List(t.Context(), &codeserverpb.ListRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetLocations(), 1)
	require.Equal(t, d.GetLocation().GetAddress(), list.GetLocations()[0].GetAddress())
	eventually(t, func() bool {
		l := h.s.messages("web")[0]
		return len(l.GetVersions()) == 2 && l.GetVersions()[1].GetState() == codeserverpb.State_STOPPED
	}, "versions that were deployed twice are there once")
	h.restart()
	await(t, d.GetLocation().GetAddress(), "two")
	_, err = h.rollback("")
	require.NoError(t, err)
	await(t, d.GetLocation().GetAddress(), "one")
}

func TestFind(t *testing.T) {
	l := &location{name: "web"}
	all := []*version{{name: "abc1"}, {name: "abd2"}, {name: "abd2"}}
	v, err := l.find(all, "abd")
	require.NoError(t, err)
	require.Same(t, all[1], v, "the newest of those with one name")
	_, err = l.find(all, "ab")
	require.ErrorIs(t, err, errRequest)
	_, err = l.find(all, "")
	require.ErrorIs(t, err, errNotFound)
}

// TestProcess looks at a version's process from the inside.
func TestProcess(t *testing.T) {
	t.Setenv("SECRET_OF_THE_SERVER", "do not tell")
	t.Setenv("PYTHONPATH", "/somewhere")
	t.Setenv("PYTHONHOME", "/nowhere")
	h := newHost(t)
	files := map[string]string{"src/lib/only.py": "", "run/x.txt": ""}
	for p, c := range webApp("one") {
		files["src/"+p] = c
	}
	d := h.deploy(h.spec(files, func(s *codeserverpb.VersionSpec) {
		s.Env = map[string]string{"MINE": "yes", "PYTHONPATH": "/extra"}
		s.Entry.SourceRoots = []string{"src", "src/lib"}
		s.Entry.WorkingDirectory = "run"
		s.SourceRoot = sourceTree(t, h.cas, withInfo(files, `{"inject_env": {"INJECTED": "1", "MINE": "no"}}`)).Proto()
	}))
	var env map[string]string
	require.NoError(t, json.Unmarshal([]byte(h.get(d, "/env")), &env))
	require.Equal(t, "yes", env["MINE"], "the location's own goes before inject_env")
	require.Equal(t, "1", env["INJECTED"])
	require.NotContains(t, env, "SECRET_OF_THE_SERVER")
	require.NotContains(t, env, "PYTHONHOME")
	allowed := append([]string{
		"PATH", "PORT", "PYTHONPATH", "VIRTUAL_ENV", "PYTHONUNBUFFERED", "PYTHONNOUSERSITE", "MINE",
		"INJECTED", "LC_CTYPE",
	}, passed...)
	for name := range env {
		require.Contains(t, allowed, name)
	}
	cwd := h.get(d, "/cwd")
	tree := strings.TrimSuffix(cwd, "/run")
	require.NotEqual(t, cwd, tree)
	var sys []any
	require.NoError(t, json.Unmarshal([]byte(h.get(d, "/sys")), &sys))
	var paths []string
	for _, p := range sys[0].([]any) {
		paths = append(paths, p.(string))
	}
	require.Equal(t, []string{cwd, tree + "/src", tree + "/src/lib", tree, "/extra"}, paths[:5])
	for _, p := range paths[5:] {
		require.NotContains(t, p, "/.local/")
		require.NotContains(t, p, "dist-packages")
	}
	require.True(t, strings.HasPrefix(paths[len(paths)-1], h.opts.State), "site-packages is the environment's own: %v", paths)
	require.True(t, strings.HasPrefix(sys[1].(string), h.opts.State), "sys.executable is the environment's")
	require.Equal(t, "sub", h.get(d, "/sub"), "sys.executable -m finds the sources")
}

func withInfo(files map[string]string, info string) map[string]string {
	all := map[string]string{"PEX-INFO": info}
	for p, c := range files {
		all[p] = c
	}
	return all
}

// TestCommand has the command preset run a program of the sources and a script of a wheel.
func TestCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := wheel(
		t, "tool",
		member{name: "tool.py", content: "import runpy, sys\ndef main():\n    runpy.run_module('app')\n"},
		member{name: "tool-1.0.dist-info/entry_points.txt", content: "[console_scripts]\nserve-tool = tool:main\n"},
	)
	files := webApp("one")
	files["bin/run.sh"] = "#!/bin/sh\nexec python -m app \"$@\"\n"
	for _, args := range [][]string{{"bin/run.sh"}, {"python3", "-m", "app"}, {"serve-tool", "--port", "{port}"}} {
		d := h.deploy(h.spec(files, func(s *codeserverpb.VersionSpec) {
			s.Entry = &codeserverpb.Entry{Preset: "command", Args: args}
			s.DepsRoot = depsTree(t, h.cas, map[string][]byte{"tool-1.0-py3-none-any.whl": w}).Proto()
		}))
		require.Equal(t, "one", h.get(d, "/"), args)
	}
}

func TestCommandLine(t *testing.T) {
	p := &prepared{python: "/env/bin/python", env: "/env", source: "/src"}
	for preset, want := range map[string]string{
		"dagster": "/env/bin/python -m dagster api grpc --host 127.0.0.1 --port 42 a 42",
		"asgi":    "/env/bin/python -m uvicorn --host 127.0.0.1 --port 42 a 42",
		"wsgi":    "/env/bin/python -m gunicorn --bind 127.0.0.1:42 a 42",
		"module":  "/env/bin/python -m a 42",
		"command": "/env/bin/a 42",
	} {
		program, args, err := command(&codeserverpb.Entry{Preset: preset, Args: []string{"a", "{port}"}}, p, 42)
		require.NoError(t, err)
		require.Equal(t, want, strings.Join(append([]string{program}, args...), " "))
	}
	e := &codeserverpb.Entry{WorkingDirectory: "wd"}
	require.Equal(t, "/src/wd/bin/x", findProgram("bin/x", e, p))
	require.Equal(t, "/bin/x", findProgram("/bin/x", e, p))
	require.Equal(t, "/env/bin/python", findProgram("python", e, p))
}

// TestResumeFirst has a deploy meet the server's own start.
func TestResumeFirst(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	app := webApp("one")
	app["app/word.py"] = "import time\ntime.sleep(1)\nWORD = 'one'\n"
	h.deploy(h.spec(app))
	h.restart()
	d := h.deploy(h.spec(webApp("two")))
	require.Equal(t, "two", h.get(d, "/"))
}

// TestLogs follows the log of a version from its start to its end.
func TestLogs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	app := webApp("one")
	app["app/word.py"] = `WORD = "one"
import sys
for i in range(10): print("line", i)
sys.stdout.buffer.write(b"\xff bytes\n" + b"x" * 200000 + b"\n")
sys.stdout.flush()
`
	d := h.deploy(h.spec(app))
	lines := func(req *codeserverpb.LogsRequest) []string {
		req.Location = "web"
		stream, err := h.Client.Logs(t.Context(), req)
		require.NoError(t, err)
		var texts []string
		for {
			l, err := stream.Recv()
			if err == io.EOF {
				return texts
			}
			require.NoError(t, err)
			require.Equal(t, d.GetLocation().GetCurrent(), l.GetVersion())
			texts = append(texts, l.GetText())
		}
	}
	all := lines(&codeserverpb.LogsRequest{})
	require.Equal(t, "line 0", all[0])
	require.Equal(t, "� bytes", all[10])
	require.Equal(t, strings.Repeat("x", 200000), strings.Join(all[11:len(all)-1], ""), "a long line comes in pieces")
	require.Equal(t, []string{"serving one"}, lines(&codeserverpb.LogsRequest{Tail: 1}))
	followed := make(chan []string)
	go func() { followed <- lines(&codeserverpb.LogsRequest{Tail: 1, Follow: true}) }()
	time.Sleep(50 * time.Millisecond)
	h.deploy(h.spec(webApp("two")))
	require.Equal(t, "serving one", (<-followed)[0], "following ends with the version")
	for _, none := range []string{"none", strings.Repeat("none", 1<<18)} {
		stream, err := h.Client.Logs(t.Context(), &codeserverpb.LogsRequest{Location: none})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.Equal(t, codes.NotFound, status.Code(err))
		require.Less(t, len(err.Error()), 1000, "many clients take no message of more than 8 KiB")
	}
}

// TestClosing has a server end while a deploy, a watch and a log are under way.
func TestClosing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.deploy(h.spec(webApp("one")))
	slow := webApp("slow")
	slow["app/word.py"] = "import time\ntime.sleep(600)\n"
	deploy, err := h.Deploy(t.Context(), &codeserverpb.DeployRequest{Location: "web", Spec: h.spec(slow)})
	require.NoError(t, err)
	logs, err := h.Client.Logs(t.Context(), &codeserverpb.LogsRequest{Location: "web", Follow: true})
	require.NoError(t, err)
	_, err = logs.Recv()
	require.NoError(t, err)
	_, err = deploy.Recv()
	require.NoError(t, err)
	require.NoError(t, h.s.Close(t.Context()))
	for err == nil {
		_, err = deploy.Recv()
	}
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	for err = nil; err == nil; {
		_, err = logs.Recv()
	}
	require.Contains(t, []codes.Code{codes.Unavailable, codes.Unknown, codes.OK}, status.Code(err), "%v", err)
	require.Empty(t, processesOf(h.opts.State))
	h.refused(codes.Unavailable, &codeserverpb.DeployRequest{Location: "web", Spec: h.spec(webApp("two"))})
}
