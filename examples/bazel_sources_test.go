package examples

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBazelSources builds source.pex of libraries, generated files, a directory and links, and sees names refused that
// this Bazel would store wrongly.
func TestBazelSources(t *testing.T) {
	s := newShop(t)
	writeTree(t, s.workspace, map[string]string{
		"extra/BUILD.bazel": `load("@pexpress_rules//:defs.bzl", "pex_binary", "pex_source", "pex_test", "pexpress_deploy")
load(":made.bzl", "made")

py_library(name = "lib", srcs = ["src/lib.py"], data = ["lib.txt"], imports = ["src"])
py_library(name = "top", srcs = ["top.py"], deps = [":lib"])
genrule(name = "generated", outs = ["generated.py"], cmd = "echo 'SAID = \"generated\"' > $@")
made(name = "directory")
pex_source(
    name = "plain",
    srcs = [":generated", ":directory"],
    data = ["data.txt", "a=b.txt"],
    links = {"extra/alias.txt": "data.txt"},
    target = "@shop_lock//:target",
    deps = [":top"],
)
pex_binary(name = "program", module = "extra.top:main", source = ":plain", deps = "//:deps")
pexpress_deploy(name = "deploy", config = "deploy.toml", location = "extra-blue", source = ":plain", deps = "//:deps")
pex_source(name = "unicode", srcs = ["naïve.py"], target = "@shop_lock//:target")
pex_source(name = "outside", srcs = ["@shop_lock//:wheels"], target = "@shop_lock//:target")
pex_test(name = "nothing", source = ":plain", deps = "//:deps")
`,
		"extra/made.bzl": `def _impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(outputs = [out], command = "mkdir -p $1/sub && echo made > $1/sub/made.txt", arguments = [out.path])
    return [DefaultInfo(files = depset([out]))]

made = rule(implementation = _impl)
`,
		"extra/deploy.toml": "[location.extra]\npreset = \"module\"\nmodule = \"extra.top\"\n",
		"extra/src/lib.py":  "LIB = 1\n", "extra/lib.txt": "lib\n", "extra/data.txt": "data\n", "extra/a=b.txt": "a=b\n", "extra/naïve.py": "",
		"extra/top.py": `import os.path

import lib

from extra import generated


def main():
    here = os.path.dirname(__file__)
    print(lib.LIB, generated.SAID, open(here + "/alias.txt").read().strip(), open(here + "/directory/sub/made.txt").read().strip())
`,
	})
	require.Equal(t, "1 generated data made\n", s.bazel("run", append(hermetic, "//extra:program")...))
	plain := filepath.Join(s.workspace, "bazel-bin/extra/plain.pex")
	target, err := os.Readlink(filepath.Join(plain, "extra/alias.txt"))
	require.NoError(t, err)
	require.Equal(t, "data.txt", target)
	require.FileExists(t, filepath.Join(plain, "extra/lib.txt"))
	require.Equal(t, "a=b\n", readString(filepath.Join(plain, "extra/a=b.txt")))
	s.build("//extra:deploy")
	descriptor, err := os.ReadFile(filepath.Join(s.workspace, "bazel-bin/extra/deploy.descriptor.json"))
	require.NoError(t, err)
	require.Contains(t, string(descriptor), `"location":"extra-blue","python":"3.11"`)
	require.Contains(t, string(descriptor), `"preset":"module","args":["extra.top"]`)

	for target, want := range map[string]string{
		"//extra:unicode": "is not ASCII, and this Bazel may store it in a remote cache under another name",
		"//extra:outside": "comes from another repository",
		"//extra:nothing": "say what to run",
	} {
		_, errs, err := s.try("build", target)
		require.Error(t, err, target)
		require.Contains(t, errs, want)
	}
	// Who allows them here sees that this Bazel has them wrong.
	_, errs, err := s.try("build", "//extra:unicode", "--@pexpress_rules//:non_ascii_names=allow")
	require.Error(t, err)
	require.Contains(t, errs, "no such file or directory")
	_, errs, err = s.try("build", "//:deps", "--@pexpress_rules//:target=3.8:win_amd64")
	require.Error(t, err)
	require.Contains(t, errs, "add it to the targets of its repository")
}
