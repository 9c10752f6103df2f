package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// greetPackages makes a Bazel workspace of the Pants example: its service greet, and the library that it needs. Pants'
// BUILD files are files like any other here.
var greetPackages = map[string]string{
	"BUILD.bazel":              "",
	"targets.bzl":              "TARGETS = [\"3.11:manylinux_2_28_x86_64\"]\n",
	"3rdparty/pex/BUILD.bazel": "exports_files([\"pylock.toml\"])\n",
	"libs/common/BUILD.bazel": `filegroup(
    name = "files",
    srcs = glob(["**"], exclude = ["BUILD.bazel"]) + ["//libs/common/src/common:files"],
    visibility = ["//visibility:public"],
)
`,
	"libs/common/src/common/BUILD.bazel": `filegroup(
    name = "files",
    srcs = glob(["**"], exclude = ["BUILD.bazel"]),
    visibility = ["//visibility:public"],
)
`,
	"services/greet/BUILD.bazel": `load("@pexpress_rules//:defs.bzl", "pex_deps", "pex_source")

exports_files(["pylock.toml"])

pex_deps(name = "deps", wheels = "@greet_lock//:wheels")

pex_source(
    name = "source",
    srcs = glob(["**"], exclude = ["BUILD.bazel"]) + ["//libs/common:files"],
    project = "services/greet",
    target = "@greet_lock//:target",
)
`,
}

// newGreet is a repository of the Pants example as a Bazel workspace.
func newGreet(t *testing.T, r *pantsRepo) *shop {
	s := newShop(t)
	dir := filepath.Join(s.workspace, "../../examples/greet")
	require.NoError(t, os.CopyFS(dir, os.DirFS(r.dir)))
	writeTree(t, dir, greetPackages)
	workspace, err := os.ReadFile("../WORKSPACE.example")
	require.NoError(t, err)
	writeTree(t, dir, map[string]string{"WORKSPACE": strings.NewReplacer(
		`"//:pylock.toml"`, `"//services/greet:pylock.toml"`, "//tools/pex:", "//3rdparty/pex:", "shop_lock", "greet_lock",
	).Replace(string(workspace))})
	s.workspace = dir
	return s.elsewhere()
}

// TestSameDigests makes deps.pex and source.pex of one project in four ways: by the command line, by its builder on
// another path, in another time zone, language and umask, by Bazel, in its sandbox and through a remote cache, and by
// Pants. Every file's digest and the roots' are the same.
func TestSameDigests(t *testing.T) {
	r := newPantsRepo(t)
	here, elsewhere := filepath.Join(t.TempDir(), "here"), filepath.Join(t.TempDir(), "else where", "é")
	for _, dir := range []string{here, elsewhere} {
		require.NoError(t, os.CopyFS(dir, os.DirFS(r.dir)))
	}
	exported := func(script, checkout, home string) (deps, source string) {
		out := filepath.Join(t.TempDir(), "greet")
		cmd := exec.Command("sh", "-c", script+`; exec "$0" "$@"`, filepath.Join(bin, "pexpress"),
			"-C", filepath.Join(checkout, "services/greet"), "export", "--layout", "packed", "--out", out)
		cmd.Env = append(os.Environ(), "PEXPRESS_HOME="+home)
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", said)
		return r.tree(filepath.Join(out, "deps.pex")), r.tree(filepath.Join(out, "source.pex"))
	}
	deps, source := exported("umask 022", here, t.TempDir())
	require.Contains(t, deps, "PEX-INFO")
	require.Contains(t, source, "greet/app.py")
	check := func(by, gotDeps, gotSource string) {
		t.Helper()
		require.Equal(t, deps, gotDeps, "deps.pex by %s", by)
		require.Equal(t, source, gotSource, "source.pex by %s", by)
	}
	d, s := exported("umask 077; export TZ=Asia/Tokyo LC_ALL=C", elsewhere, t.TempDir())
	check("the builder elsewhere", d, s)

	r.host().run("package", "services/greet:deploy")
	check("Pants", r.tree(r.path("dist/services.greet/deploy/deps.pex")), r.tree(r.path("dist/services.greet/deploy/source.pex")))
	require.NoError(t, os.RemoveAll(r.path("dist")))

	b := newGreet(t, r)
	built := func(b *shop) (deps, source string) {
		dir := filepath.Join(b.workspace, "bazel-bin/services/greet")
		return r.tree(filepath.Join(dir, "deps.pex")), r.tree(filepath.Join(dir, "source.pex"))
	}
	cache, targets := "--remote_cache=grpc://"+servePexcache(t).grpc, []string{"//services/greet:deps", "//services/greet:source"}
	b.build(append(append(hermetic, cache), targets...)...)
	d, s = built(b)
	check("Bazel in its sandbox", d, s)
	other := b.elsewhere()
	requireRemote(t, other.build(append(targets, cache)...))
	d, s = built(other)
	check("Bazel from a remote cache", d, s)
}
