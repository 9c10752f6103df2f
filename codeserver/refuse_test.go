package codeserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestMalformed refuses requests before anything is done.
func TestMalformed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for want, change := range map[string]func(*codeserverpb.DeployRequest){
		"no name for a location":      func(r *codeserverpb.DeployRequest) { r.Location = "../x" },
		"no spec":                     func(r *codeserverpb.DeployRequest) { r.Spec = nil },
		"not \"2.7\"":                 func(r *codeserverpb.DeployRequest) { r.Spec.Python = "2.7" },
		"nothing says what":           func(r *codeserverpb.DeployRequest) { r.Spec.Entry = nil },
		"no preset \"rails\"":         func(r *codeserverpb.DeployRequest) { r.Spec.Entry.Preset = "rails" },
		"has no arguments":            func(r *codeserverpb.DeployRequest) { r.Spec.Entry.Args = nil },
		"holds a NUL":                 func(r *codeserverpb.DeployRequest) { r.Spec.Entry.Args = []string{"a\x00"} },
		"\"../up\" is not a dir":      func(r *codeserverpb.DeployRequest) { r.Spec.Entry.WorkingDirectory = "../up" },
		"\"/abs\" is not a dir":       func(r *codeserverpb.DeployRequest) { r.Spec.Entry.SourceRoots = []string{"/abs"} },
		"\"a:b\" is not a dir":        func(r *codeserverpb.DeployRequest) { r.Spec.Entry.SourceRoots = []string{"a:b"} },
		"\"A=B\" is no environment":   func(r *codeserverpb.DeployRequest) { r.Spec.Env = map[string]string{"A=B": ""} },
		"PORT is set by":              func(r *codeserverpb.DeployRequest) { r.Spec.Env = map[string]string{"PORT": "1"} },
		"ready timeout":               func(r *codeserverpb.DeployRequest) { r.ReadyTimeout = durationpb.New(-time.Second) },
		"deps_root":                   func(r *codeserverpb.DeployRequest) { r.Spec.DepsRoot = nil },
		"source_root":                 func(r *codeserverpb.DeployRequest) { r.Spec.SourceRoot.Hash = "xyz" },
		"\"nope\" is not host:port":   func(r *codeserverpb.DeployRequest) { r.Listen = "nope" },
		"\"no/slash\" is no HTTP":     probePath("no/slash"),
		"\"/with space\" is no HTTP":  probePath("/with space\x7f"),
		"\"gone\" is not in the sour": func(r *codeserverpb.DeployRequest) { r.Spec.Entry.WorkingDirectory = "gone" },
	} {
		req := &codeserverpb.DeployRequest{Location: "web", Spec: h.spec(webApp("one"))}
		change(req)
		if strings.Contains(want, "with space") {
			want = "is no HTTP path"
		}
		require.Contains(t, h.refused(codes.InvalidArgument, req), want)
	}
	require.Empty(t, h.s.all())
}

func probePath(path string) func(*codeserverpb.DeployRequest) {
	return func(r *codeserverpb.DeployRequest) {
		r.Spec.Entry.Readiness = &codeserverpb.Readiness{Probe: &codeserverpb.Readiness_HttpPath{HttpPath: path}}
	}
}

// TestInfo goes through what PEX-INFO may say.
func TestInfo(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	refuse := func(info, want string) {
		t.Helper()
		require.Contains(t, h.refused(codes.InvalidArgument, &codeserverpb.DeployRequest{
			Location: "web", Spec: h.spec(withInfo(webApp("one"), info)),
		}), want, info)
	}
	for info, want := range map[string]string{
		`{"entry_point": "x"}`:                                    "the field entry_point is not supported",
		`{"new_field": null}`:                                     "the field new_field is not supported",
		`{"inherit_path": "fallback"}`:                            "inherit_path is fallback",
		`{"pex_path": "/x"}`:                                      "pex_path is /x",
		`{"pex_paths": ["/x"]}`:                                   "pex_paths is [/x]",
		`{"interpreter_constraints": ["==3.11.*"]}`:               "interpreter_constraints is",
		`{"inject_args": ["x"]}`:                                  "inject_args is",
		`{"inject_python_args": ["-O"]}`:                          "inject_python_args is",
		`{"venv_system_site_packages": true}`:                     "venv_system_site_packages is true",
		`{"bind_resource_paths": {"A": "b"}}`:                     "bind_resource_paths is",
		`{"venv_bin_path": "prepend"}`:                            "venv_bin_path is prepend",
		`{"inject_env": {"A=B": ""}}`:                             "inject_env: \"A=B\"",
		`{"distributions": {"a-1-py3-none-any.whl": "00"}}`:       "not wheel files",
		`{"distributions": {"a": "0"}, "deps_are_wheel_files":1}`: "json",
		`null`:   "not a JSON object",
		`{"a": `: "unexpected end",
	} {
		refuse(info, want)
	}
	w := wheel(t, "dep", member{name: "dep.py", content: "x = 1\n"})
	const name = "dep-1.0-py3-none-any.whl"
	sum := digest.FromBytes(w).Hash()
	for info, want := range map[string]string{
		`{"requirements": ["dep"], "deps_are_wheel_files": true, "distributions": {"` + name + `": "00"}}`:                   "whose sha256 is " + sum,
		`{"requirements": ["dep"], "deps_are_wheel_files": true}`:                                                            "distributions has \"\"",
		`{"requirements": ["other"], "deps_are_wheel_files": true, "distributions": {"` + name + `": "` + sum + `"}}`:        "requirements does not name",
		`{"deps_are_wheel_files": true, "distributions": {"` + name + `": "` + sum + `", "gone-1.0-py3-none-any.whl": "1"}}`: "which is not there",
	} {
		root := tree(t, h.cas, map[string]string{"PEX-INFO": info, ".deps/" + name: string(w)})
		require.Contains(t, h.refused(codes.InvalidArgument, &codeserverpb.DeployRequest{
			Location: "web", Spec: h.spec(webApp("one"), func(s *codeserverpb.VersionSpec) { s.DepsRoot = root.Proto() }),
		}), want, info)
	}
	for _, files := range []map[string]string{{"app.py": ""}, {"PEX-INFO": "{}", "app/x.py": ""}} {
		root := tree(t, h.cas, files)
		h.refused(codes.InvalidArgument, &codeserverpb.DeployRequest{
			Location: "web", Spec: h.spec(webApp("one"), func(s *codeserverpb.VersionSpec) { s.DepsRoot = root.Proto() }),
		})
	}
}

// TestHostileWheels sends wheels through the whole way: the error names the wheel and the member.
func TestHostileWheels(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for want, m := range map[string]member{
		"../evil.py":   {name: "../evil.py", content: "x"},
		"/evil.py":     {name: "/evil.py", content: "x"},
		"link":         {name: "link", content: "/etc/passwd", mode: os.ModeSymlink | 0o777},
		"would become": {name: "bomb", content: strings.Repeat("\x00", 64<<20)},
		"changed.py":   {name: "changed.py", content: "x", record: "changed.py,sha256=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA,1"},
		"resized.py":   {name: "resized.py", content: "x", record: "resized.py,,7"},
		"dep.py/x.py":  {name: "dep.py/x.py", content: "x"},
	} {
		w := wheel(t, "dep", member{name: "dep.py", content: "x = 1\n"}, m)
		root := depsTree(t, h.cas, map[string][]byte{"dep-1.0-py3-none-any.whl": w})
		msg := h.refused(codes.InvalidArgument, &codeserverpb.DeployRequest{
			Location: "web", Spec: h.spec(webApp("one"), func(s *codeserverpb.VersionSpec) { s.DepsRoot = root.Proto() }),
		})
		require.Contains(t, msg, want)
		require.Contains(t, msg, "dep-1.0-py3-none-any.whl")
	}
	left, err := filepath.Glob(filepath.Join(h.opts.State, "python/envs/*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// flakyCAS fails while it is told to.
type flakyCAS struct {
	cache.CAS
	err error
}

func (f *flakyCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f.CAS.Get(ctx, d)
}

// TestCacheFails has the cache lack a blob, fail, and not open; what is served goes on.
func TestCacheFails(t *testing.T) {
	t.Parallel()
	flaky := &flakyCAS{CAS: memory.New()}
	var openErr error
	h := newHost(t, func(o *Options) {
		o.Open = func(context.Context) (cache.CAS, io.Closer, error) { return flaky, io.NopCloser(nil), openErr }
	})
	h.cas = flaky
	one, two := h.spec(webApp("one")), h.spec(webApp("two"))
	openErr = errors.New("no route")
	require.Contains(t, h.refused(codes.Unavailable, &codeserverpb.DeployRequest{Location: "web", Spec: one}), "no route")
	openErr = nil
	d := h.deploy(one)
	flaky.err = errors.New("connection reset")
	require.Contains(t, h.refused(codes.Unavailable, &codeserverpb.DeployRequest{Location: "web", Spec: two}), "connection reset")
	require.Equal(t, "one", h.get(d, "/"))
	flaky.err = nil
	require.Equal(t, "two", h.get(h.deploy(two), "/"), "a cache that is back is used")

	three := h.spec(webApp("three"))
	three.SourceRoot = digest.FromBytes([]byte("nobody has this")).Proto()
	msg := h.refused(codes.NotFound, &codeserverpb.DeployRequest{Location: "web", Spec: three})
	require.Contains(t, msg, three.GetSourceRoot().GetHash())
	require.Contains(t, msg, "the same cache")
}

// TestHostCannot refuses what another host could do.
func TestHostCannot(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	one := h.spec(webApp("one"))
	none := h.spec(webApp("one"), func(s *codeserverpb.VersionSpec) { s.Python = "3.4" })
	require.Contains(t, h.refused(codes.FailedPrecondition, &codeserverpb.DeployRequest{Location: "web", Spec: none}), "3.4")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	msg := h.refused(codes.FailedPrecondition, &codeserverpb.DeployRequest{Location: "web", Spec: one, Listen: taken.Addr().String()})
	require.Contains(t, msg, taken.Addr().String())
	for _, remote := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:80"} {
		msg = h.refused(codes.FailedPrecondition, &codeserverpb.DeployRequest{Location: "web", Spec: one, Listen: remote})
		require.Contains(t, msg, "--allow-unauthenticated-remote-access")
	}
	require.Empty(t, h.s.all(), "no location is left")
}

// TestMove gives a location that serves another address, and keeps it over a restart.
func TestMove(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	one := h.spec(webApp("one"))
	d := h.deploy(one)
	first := d.GetLocation().GetAddress()
	same, err := h.try(&codeserverpb.DeployRequest{Location: "web", Spec: one, Listen: strings.Replace(first, "127.0.0.1", "localhost", 1)})
	require.NoError(t, err)
	require.Equal(t, first, same.GetLocation().GetAddress(), "another name for the same address")
	require.False(t, same.GetMoved())
	require.False(t, d.GetMoved(), "it had none before")

	bad := webApp("bad")
	bad["app/word.py"] = "raise SystemExit(1)"
	free, err := h.s.ports.give()
	require.NoError(t, err)
	other := net.JoinHostPort("127.0.0.1", strconv.Itoa(free))
	h.refused(codes.FailedPrecondition, &codeserverpb.DeployRequest{Location: "web", Spec: h.spec(bad), Listen: other})
	require.Equal(t, "one", h.get(d, "/"), "a deploy that fails moves nothing")

	moved, err := h.try(&codeserverpb.DeployRequest{Location: "web", Spec: one, Listen: other})
	require.NoError(t, err)
	require.True(t, moved.GetUnchanged())
	require.True(t, moved.GetMoved())
	require.Equal(t, "one", h.get(moved, "/"))
	_, err = net.Dial("tcp", first)
	require.Error(t, err, "the old address is closed")
	h.close()
	// Something else has the address for a while: the codeserver starts, and takes it when it is free.
	taken, err := net.Listen("tcp", other)
	require.NoError(t, err)
	h.open()
	require.NoError(t, taken.Close())
	await(t, other, "one")
}

// TestState refuses to open what it cannot use, and deletes nothing of it.
func TestState(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.deploy(h.spec(webApp("one")))
	_, err := Open(h.opts)
	require.ErrorContains(t, err, "another codeserver uses "+h.opts.State)
	h.close()
	path := filepath.Join(h.opts.State, "state.json")
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	var state struct{ Locations []map[string]any }
	require.NoError(t, json.Unmarshal(good, &state))
	location := func(name string) string {
		l := maps.Clone(state.Locations[0])
		l["name"], l["user"] = name, 70000
		b, err := json.Marshal(l)
		require.NoError(t, err)
		return string(b)
	}
	for content, want := range map[string]string{
		"{": "is damaged",
		strings.Replace(string(good), `"version": 1`, `"version": 9`, 1):                                         "has the format 9",
		strings.Replace(string(good), `"current": "`, `"current": "00`, 1):                                       "is not there",
		strings.Replace(string(good), `"name": "web"`, `"name": "../web"`, 1):                                    "no name of its own",
		strings.Replace(string(good), `"preset"`, `"pretest"`, 1):                                                "is damaged",
		strings.Replace(string(good), `"127.0.0.1:`, `"0.0.0.0:`, 1):                                             "--allow-unauthenticated",
		strings.Replace(string(good), `"address": "127.0`, `"address": "", "x": "`, 1):                           "its address",
		strings.Replace(string(good), `"name": "web"`, `"name": "web", "user": -1`, 1):                           "nobody's to give",
		strings.Replace(string(good), `"name": "web"`, `"name": "web", "user": 2`, 1):                            "nobody's to give",
		strings.Replace(string(good), `"locations": [`, `"locations": [`+location("a")+","+location("b")+",", 1): "its user 70000 is that of a",
	} {
		require.NotEqual(t, string(good), content)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		_, err := Open(h.opts)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "")
		kept, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(kept))
		trees, err := os.ReadDir(filepath.Join(h.opts.State, "store/trees"))
		require.NoError(t, err)
		require.Len(t, trees, 1)
	}
	require.NoError(t, os.WriteFile(path, good, 0o644))
	h.open()

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for _, dir := range []string{filepath.Join(file, "state"), "/proc/no-such-directory", "/tmp/with:colon"} {
		_, err := Open(Options{State: dir, Open: h.opts.Open})
		require.ErrorContains(t, err, "state directory")
	}
}
