"The tools of a machine as repositories: the pexpress binary, and Pythons."

_TOOL = """load("{rules}", "pexpress_toolchain")

package(default_visibility = ["//visibility:public"])

exports_files(["pexpress"])

pexpress_toolchain(
    name = "pexpress_toolchain",
    binary = "pexpress",
)

toolchain(
    name = "toolchain",
    toolchain = ":pexpress_toolchain",
    toolchain_type = "{type}",
)
"""

def _pexpress_tool_repository_impl(ctx):
    if ctx.attr.urls:
        if not ctx.attr.sha256:
            fail("%s: urls needs sha256: what cannot be checked is not run" % ctx.name)
        ctx.download(ctx.attr.urls, "pexpress", sha256 = ctx.attr.sha256, executable = True)
    else:
        binary = ctx.attr.path or ctx.os.environ.get("PEXPRESS", "") or ctx.which("pexpress")
        if not binary:
            fail("no pexpress on PATH: install it, set PEXPRESS to where it is, or give urls and sha256")
        if not ctx.path(str(binary)).exists:
            fail("there is no %s: install pexpress there, or set PEXPRESS to where it is" % binary)
        ctx.symlink(str(binary), "pexpress")
    ctx.file("BUILD.bazel", _TOOL.format(rules = str(Label("//:defs.bzl")), type = str(Label("//:toolchain_type"))))

pexpress_tool_repository = repository_rule(
    implementation = _pexpress_tool_repository_impl,
    attrs = {
        "path": attr.string(doc = "Absolute path of the binary; if empty, $PEXPRESS, else the one on PATH."),
        "sha256": attr.string(doc = "Of what urls names."),
        "urls": attr.string_list(doc = "Where to download the binary; needs sha256."),
    },
    environ = ["PEXPRESS", "PATH"],
    doc = "The pexpress binary: register_toolchains(\"@NAME//:toolchain\").",
)

_INTERPRETERS = """load("{rules}", "pexpress_interpreters")

package(default_visibility = ["//visibility:public"])

pexpress_interpreters(
    name = "interpreters",
    paths = {paths},
)

toolchain(
    name = "toolchain",
    toolchain = ":interpreters",
    toolchain_type = "{type}",
)
"""

# Asks an interpreter which it is: what is on PATH may be a shim that runs another.
_ASK = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"

def _pexpress_interpreters_repository_impl(ctx):
    paths = dict(ctx.attr.paths)
    for version in ctx.attr.versions:
        found = None if version in paths else ctx.which("python" + version)
        if found:
            said = ctx.execute([found, "-I", "-c", _ASK])
            if said.return_code == 0 and said.stdout.splitlines()[0] == version:
                paths[version] = said.stdout.splitlines()[1]
    ctx.file("BUILD.bazel", _INTERPRETERS.format(
        rules = str(Label("//:defs.bzl")),
        paths = repr(paths),
        type = str(Label("//:interpreters_toolchain_type")),
    ))

pexpress_interpreters_repository = repository_rule(
    implementation = _pexpress_interpreters_repository_impl,
    attrs = {
        "paths": attr.string_dict(doc = "Absolute paths of interpreters by version."),
        "versions": attr.string_list(
            default = ["3.%d" % minor for minor in range(8, 16)],
            doc = "Versions to look for on PATH; those that are not there are left out.",
        ),
    },
    environ = ["PATH"],
    local = True,
    doc = "The Pythons of this machine, to run zipapps and tests with: register_toolchains(\"@NAME//:toolchain\").",
)
