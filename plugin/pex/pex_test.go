package pex_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin"
	"github.com/pexpress/pexpress/plugin/action"
	"github.com/pexpress/pexpress/plugin/pex"
)

// pexWheel is a wheel with the members that the builder takes from pex's, and others that it must leave. Real pex is
// the measure in TestFidelity; here it is only what the files are made of.
func pexWheel(t *testing.T) []byte {
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, name := range []string{
		"pex/__init__.py", "pex/pex_boot.py", "pex/cache/dirs.py", "pex/tools/main.py", "pex/docs/x.html",
		"pex/vendor/__init__.py", "pex/vendor/_vendored/__init__.py", "pex/vendor/_vendored/attrs/__init__.py",
		"pex/vendor/_vendored/attrs/attr/__init__.py", "pex/vendor/_vendored/attrs/attrs/__init__.py",
		"pex/vendor/_vendored/pip/__init__.py", "pex/vendor/_vendored/pip/pip/__init__.py",
	} {
		w, err := z.Create(name)
		require.NoError(t, err)
		_, err = w.Write([]byte("# " + name + "\n"))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return buf.Bytes()
}

type fixture struct {
	cas       *memory.Store
	bootstrap *merkle.Tree
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{cas: memory.New()}
	f.unpack(t, "pex-9.9-py3-none-any.whl", pexWheel(t))
	return f
}

// unpack makes the bootstrap of a pex wheel.
func (f *fixture) unpack(t *testing.T, name string, wheel []byte) {
	p, err := action.Bootstrap(action.BootstrapInput{
		Wheel: action.File{Name: name, Digest: f.put(t, string(wheel))}, OutputVersion: pex.OutputVersion,
	})
	require.NoError(t, err)
	_, f.bootstrap = f.build(t, p)
}

func (f *fixture) put(t *testing.T, content string) digest.Digest {
	d, err := cache.PutBlob(t.Context(), f.cas, []byte(content))
	require.NoError(t, err)
	return d
}

func (f *fixture) source(t *testing.T, files map[string]string) *action.Plan {
	var b merkle.Builder
	for name, content := range files {
		require.NoError(t, b.File(name, f.put(t, content)))
	}
	tree, err := b.Build()
	require.NoError(t, err)
	p, err := action.Source(action.SourceInput{
		Tree: tree, Bootstrap: f.bootstrap, Python: "3.11", Platform: "manylinux_2_28_x86_64",
		SourceRoots: []string{"src"}, OutputVersion: pex.OutputVersion,
	})
	require.NoError(t, err)
	return p
}

// build runs a plan and returns the output tree's files by path.
func (f *fixture) build(t *testing.T, p *action.Plan) (map[string]string, *merkle.Tree) {
	ctx := t.Context()
	require.NoError(t, p.Upload(ctx, f.cas))
	ar, err := pex.New().Build(ctx, f.cas, p.Digest)
	require.NoError(t, err)
	root, err := digest.FromProto(ar.GetOutputDirectories()[0].GetRootDirectoryDigest())
	require.NoError(t, err)
	tree, err := merkle.Load(ctx, f.cas, root)
	require.NoError(t, err)
	files := map[string]string{}
	for path, d := range tree.Files() {
		b, err := cache.ReadBlob(ctx, f.cas, d, 1<<30)
		require.NoError(t, err, path)
		files[path] = string(b)
	}
	return files, tree
}

func TestSource(t *testing.T) {
	f := newFixture(t)
	one, tree := f.build(t, f.source(t, map[string]string{"src/app/a.py": "A = 1\n", "data/x.csv": "1\n"}))
	require.Equal(t, "A = 1\n", one["src/app/a.py"])
	require.Equal(t, "1\n", one["data/x.csv"])
	require.Contains(t, one, ".bootstrap/pex/cache/dirs.py")
	require.Contains(t, one, ".bootstrap/pex/vendor/_vendored/attrs/attr/__init__.py")
	for _, left := range []string{
		"pex/tools/main.py", "pex/docs/x.html", "pex/vendor/_vendored/pip/__init__.py",
		"pex/vendor/_vendored/attrs/attrs/__init__.py",
	} {
		require.NotContains(t, one, ".bootstrap/"+left)
	}
	require.True(t, strings.HasPrefix(one["__main__.py"], "#!/usr/bin/env python3.11\n\n# pex/pex_boot.py\n"))
	require.Equal(t, strings.TrimPrefix(one["__main__.py"], "#!/usr/bin/env python3.11\n\n"), one["__pex__/__init__.py"])
	for path, target := range tree.Symlinks() {
		require.Equal(t, [2]string{"pex", "__main__.py"}, [2]string{path, target})
	}
	var info pex.Info
	require.NoError(t, json.Unmarshal([]byte(one["PEX-INFO"]), &info))
	require.Empty(t, info.Requirements)
	require.Equal(t, "9.9", info.BuildProperties["pex_version"])
	require.Equal(t, []any{"src"}, info.BuildProperties["pexpress_source_roots"])

	two, _ := f.build(t, f.source(t, map[string]string{"src/app/a.py": "A = 2\n", "data/x.csv": "1\n"}))
	for path := range one {
		require.Equal(t, path != "src/app/a.py" && path != "PEX-INFO", one[path] == two[path], path)
	}
}

func TestDeps(t *testing.T) {
	f := newFixture(t)
	in := action.DepsInput{
		Wheels: []action.File{
			{Name: "Zope.interface-7.0_1-cp311-cp311-manylinux_2_28_x86_64.whl", Digest: f.put(t, "zope")},
			{Name: "attrs-25.3.0-py3-none-any.whl", Digest: f.put(t, "attrs")},
		},
		Bootstrap: f.bootstrap, Python: "3.11", Platform: "manylinux_2_28_x86_64", OutputVersion: pex.OutputVersion,
	}
	p, err := action.Deps(in)
	require.NoError(t, err)
	files, _ := f.build(t, p)
	require.Equal(t, "attrs", files[".deps/attrs-25.3.0-py3-none-any.whl"], "a wheel stays as it was published")
	var info pex.Info
	require.NoError(t, json.Unmarshal([]byte(files["PEX-INFO"]), &info))
	require.True(t, info.DepsAreWheelFiles)
	require.ElementsMatch(t, []string{"attrs==25.3.0", "zope-interface==7.0-1"}, info.Requirements)
	require.Equal(t, f.put(t, "attrs").Hash(), info.Distributions["attrs-25.3.0-py3-none-any.whl"])
	require.Contains(t, files["__main__.py"], "pex_hash='"+info.PexHash+"',")

	// The order in which wheels are given does not matter.
	in.Wheels[0], in.Wheels[1] = in.Wheels[1], in.Wheels[0]
	q, err := action.Deps(in)
	require.NoError(t, err)
	require.Equal(t, p.Digest, q.Digest)
}

func TestRefused(t *testing.T) {
	f := newFixture(t)
	ctx := context.Background()
	for _, name := range []string{"PEX-INFO", "__main__.py", "__pex__/x.py", ".deps/a.whl", ".bootstrap/x", "pex/mine.py"} {
		p := f.source(t, map[string]string{name: "x"})
		require.NoError(t, p.Upload(ctx, f.cas))
		_, err := pex.New().Build(ctx, f.cas, p.Digest)
		require.ErrorIs(t, err, plugin.ErrInvalidAction, name)
		require.ErrorContains(t, err, strings.Split(name, "/")[0])
	}
	var b merkle.Builder
	require.NoError(t, b.File("a.py", f.put(t, "a")))
	tree, err := b.Build()
	require.NoError(t, err)
	in := action.SourceInput{Tree: tree, Bootstrap: f.bootstrap, Python: "3.11", Platform: "any", OutputVersion: "pex-0"}
	p, err := action.Source(in)
	require.NoError(t, err)
	require.NoError(t, p.Upload(ctx, f.cas))
	_, err = pex.New().Build(ctx, f.cas, p.Digest)
	require.ErrorIs(t, err, plugin.ErrOutputVersion)

	in.OutputVersion, in.Bootstrap = pex.OutputVersion, tree
	p, err = action.Source(in)
	require.NoError(t, err)
	require.NoError(t, p.Upload(ctx, f.cas))
	_, err = pex.New().Build(ctx, f.cas, p.Digest)
	require.ErrorIs(t, err, plugin.ErrInvalidAction, "a bootstrap that is none")

	p, err = action.Bootstrap(action.BootstrapInput{
		Wheel: action.File{Name: "pex-9.9-py3-none-any.whl", Digest: f.put(t, "no zip")}, OutputVersion: pex.OutputVersion,
	})
	require.NoError(t, err)
	require.NoError(t, p.Upload(ctx, f.cas))
	_, err = pex.New().Build(ctx, f.cas, p.Digest)
	require.ErrorIs(t, err, plugin.ErrInvalidAction, "a wheel that is no zip")

	_, err = pex.New().Build(ctx, f.cas, digest.FromBytes([]byte("no such action")))
	require.ErrorIs(t, err, plugin.ErrInputUnreadable)
}

// TestFidelity compares the trees with what the pinned pex itself writes for the same wheels and sources, file by file.
func TestFidelity(t *testing.T) {
	venv := os.Getenv("PEXPRESS_TEST_CLIENTS")
	if venv == "" {
		t.Skip("needs real pex: run make test-clients")
	}
	ctx := t.Context()
	dir := t.TempDir()
	pip := func(args ...string) {
		out, err := exec.Command(filepath.Join(venv, "bin/pip"), append([]string{"download", "-q", "--no-deps", "-d", dir + "/wheels"}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	pip("six==1.16.0", "attrs==25.3.0")
	pex2 := "pex==2.105.2"
	out, err := exec.Command(filepath.Join(venv, "bin/pip"), "download", "-q", "--no-deps", "-d", dir+"/pex", pex2).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.MkdirAll(dir+"/src/app", 0o755))
	require.NoError(t, os.WriteFile(dir+"/src/app/a.py", []byte("A = 1\n"), 0o644))
	run := func(args ...string) {
		args = append(args, "--python-shebang", "#!/usr/bin/env python3.11")
		out, err := exec.Command(filepath.Join(venv, "bin/pex"), args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	run("--layout", "packed", "--no-pre-install-wheels", "--no-compress", "--no-pypi", "--find-links", dir+"/wheels",
		"six==1.16.0", "attrs==25.3.0", "-o", dir+"/deps.pex")
	run("--layout", "loose", "-D", dir+"/src", "-o", dir+"/source.pex")

	m := memory.New()
	file := func(path string) action.File {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		d, err := cache.PutBlob(ctx, m, b)
		require.NoError(t, err)
		return action.File{Name: filepath.Base(path), Digest: d}
	}
	glob := func(pattern string) (files []action.File) {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		require.NoError(t, err)
		for _, p := range paths {
			files = append(files, file(p))
		}
		return files
	}
	f := &fixture{cas: m}
	wheels, err := filepath.Glob(dir + "/pex/*.whl")
	require.NoError(t, err)
	wheel, err := os.ReadFile(wheels[0])
	require.NoError(t, err)
	f.unpack(t, filepath.Base(wheels[0]), wheel)
	deps, err := action.Deps(action.DepsInput{
		Wheels: glob("wheels/*.whl"), Bootstrap: f.bootstrap,
		Python: "3.11", Platform: "any", OutputVersion: pex.OutputVersion,
	})
	require.NoError(t, err)
	got, _ := f.build(t, deps)
	requireSame(t, dir+"/deps.pex", got, nil)

	var b merkle.Builder
	require.NoError(t, b.File("app/a.py", file(dir+"/src/app/a.py").Digest))
	tree, err := b.Build()
	require.NoError(t, err)
	source, err := action.Source(action.SourceInput{
		Tree: tree, Bootstrap: f.bootstrap,
		Python: "3.11", Platform: "any", OutputVersion: pex.OutputVersion,
	})
	require.NoError(t, err)
	got, _ = f.build(t, source)
	// The deviations that docs/pex-info.md justifies: hashes of the sources, and where __main__.py has them from.
	requireSame(t, dir+"/source.pex", got, []string{"code_hash", "pex_hash"})
}

// requireSame compares a PEX that pex wrote with one of ours. Where fields of PEX-INFO may differ, so may the files that
// repeat them.
func requireSame(t *testing.T, dir string, got map[string]string, fields []string) {
	want := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			rel, _ := filepath.Rel(dir, path)
			want[rel] = string(b)
		}
		return err
	}))
	var wantInfo, gotInfo map[string]any
	require.NoError(t, json.Unmarshal([]byte(want["PEX-INFO"]), &wantInfo))
	require.NoError(t, json.Unmarshal([]byte(got["PEX-INFO"]), &gotInfo))
	for _, name := range fields {
		require.NotEqual(t, wantInfo[name], gotInfo[name], "%s no longer differs: say so in docs/pex-info.md", name)
		delete(wantInfo, name)
		delete(gotInfo, name)
	}
	require.Equal(t, wantInfo, gotInfo)
	if len(fields) > 0 {
		for _, name := range []string{"PEX-INFO", "__main__.py", "__pex__/__init__.py"} {
			delete(want, name)
			delete(got, name)
		}
	}
	for name := range want {
		require.Contains(t, got, name)
		require.Equal(t, sha256.Sum256([]byte(want[name])), sha256.Sum256([]byte(got[name])), name)
	}
	require.Len(t, got, len(want))
}
